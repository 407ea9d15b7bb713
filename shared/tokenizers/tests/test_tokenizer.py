"""Test that encoding is lossless, equals the library's, and that text cannot forge special tokens."""

import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy
import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.tokenizers import Tokenizer
from shared.tokenizers.byte_alphabet import BYTE_TOKENS
from shared.tokenizers.tests.examples import FIXED, data, texts
from shared.tokenizers.tests.oracle import ADVERSARIAL, SCRIPTS, TEXTS, trained_library
from shared.tokenizers.tokenizer import MAX_CACHED_WORD_LENGTH, MAX_CACHED_WORDS

SPECIAL_TOKENS = ["<|begin|>", "<|end|>", "<image>", "<image><end>"]
CORPUS = [TEXTS["english"][:20_000], TEXTS["code"][:20_000], SCRIPTS]


def added(library: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    library.add_special_tokens(SPECIAL_TOKENS)
    return library


TOKENIZERS = {
    name: Tokenizer.train(CORPUS, 1_004, special_tokens=SPECIAL_TOKENS, pattern=name)
    for name in ("gpt2", "llama3", "qwen2")
}
REFERENCES = {name: added(trained_library(CORPUS, 1_000, name)) for name in TOKENIZERS}
tokenizer = TOKENIZERS["llama3"]


def test_vocabulary_order_is_bytes_merges_special_tokens():
    numbers = list(tokenizer.vocab.values())
    assert list(tokenizer.vocab)[:256] == list(BYTE_TOKENS) and numbers == list(range(1_000))
    assert tokenizer.special_tokens == dict(zip(SPECIAL_TOKENS, range(1_000, 1_004), strict=True))
    assert tokenizer.vocab_size == 1_004 and len(tokenizer.merges) == 744


@pytest.mark.parametrize("pattern", TOKENIZERS)
def test_token_ids_equal_the_library(pattern):
    for text in [*ADVERSARIAL, *TEXTS.values()]:
        numbers = TOKENIZERS[pattern].encode(text, allowed_special=SPECIAL_TOKENS)
        assert numbers == REFERENCES[pattern].encode(text).ids, ascii(text[:60])
        assert TOKENIZERS[pattern].decode(numbers) == text
        for skip in (False, True):
            expected = REFERENCES[pattern].decode(numbers, skip_special_tokens=skip)
            assert TOKENIZERS[pattern].decode(numbers, skip_special_tokens=skip) == expected


@settings(max_examples=150, **FIXED)
@given(st.lists(st.one_of(texts, st.sampled_from(SPECIAL_TOKENS)), max_size=6).map("".join))
def test_any_text_round_trips_with_the_library_token_ids(text):
    for pattern, trained in TOKENIZERS.items():
        numbers = trained.encode(text, allowed_special=trained.special_tokens)
        assert numbers == REFERENCES[pattern].encode(text).ids
        assert trained.decode(numbers) == text
        assert trained.decode(trained.encode(text)) == text


@settings(max_examples=150, **FIXED)
@given(data)
def test_any_bytes_round_trip(raw):
    assert tokenizer.decode_bytes(tokenizer.encode(raw)) == raw
    assert tokenizer.decode(tokenizer.encode(raw)) == raw.decode("utf-8", "replace")


@settings(**FIXED)
@given(texts)
def test_text_and_its_bytes_encode_alike(text):
    assert tokenizer.encode(text.encode()) == tokenizer.encode(text)


@settings(max_examples=200, **FIXED)
@given(st.lists(st.integers(0, 1_003), max_size=40))
def test_any_token_ids_decode_as_the_library(numbers):
    assert tokenizer.decode(numbers) == REFERENCES["llama3"].decode(numbers, skip_special_tokens=False)


@settings(**FIXED)
@given(texts, st.lists(st.tuples(st.sampled_from(SPECIAL_TOKENS), texts), max_size=3))
def test_plain_text_never_encodes_to_a_special_token(text, forged):
    text += "".join(special + more for special, more in forged)
    assert not set(tokenizer.encode(text)) & set(tokenizer.special_tokens.values())


def test_allowed_special_tokens_are_recognized_longest_first():
    begin, end, image, image_end = tokenizer.special_tokens.values()
    text = "<|begin|>a<image><image><end><|end|>"
    assert tokenizer.encode(text, allowed_special=tokenizer.special_tokens) == [
        begin,
        *tokenizer.encode("a"),
        image,
        image_end,
        end,
    ]
    assert tokenizer.encode("<image><end>", allowed_special=["<image>"]) == [image, *tokenizer.encode("<end>")]
    assert tokenizer.encode("<image><|end|>", allowed_special=["<image>"]) == [image, *tokenizer.encode("<|end|>")]
    only_end = tokenizer.encode(text, allowed_special=["<|end|>"])
    assert only_end[-1] == end and not {begin, image, image_end} & set(only_end)
    assert tokenizer.decode([image, *tokenizer.encode("x"), end], skip_special_tokens=True) == "x"
    with pytest.raises(ValueError, match=r"no special token <box>; this tokenizer has <\|begin\|>"):
        tokenizer.encode("", allowed_special=["<box>"])


def test_word_of_100_000_letters_equals_the_library():
    for letters in ("ab", "acgt", "etaoinshrdlu"):
        word = "".join(random.Random(0).choices(letters, k=100_000))
        assert tokenizer.encode(word) == REFERENCES["llama3"].encode(word).ids


def test_cache_is_bounded_and_changes_nothing():
    fresh = Tokenizer.train(CORPUS, 1_004, special_tokens=SPECIAL_TOKENS)
    text = " the the the " + "x" * (MAX_CACHED_WORD_LENGTH + 1)
    first = fresh.encode(text)
    assert fresh.encode(text) == first == tokenizer.encode(text)
    assert " the" in fresh._cache and max(map(len, fresh._cache)) <= MAX_CACHED_WORD_LENGTH
    first.clear()
    assert fresh.encode(" the") == tokenizer.encode(" the"), "the caller owns what it got"
    fresh._cache |= {f"{number}": [] for number in range(MAX_CACHED_WORDS)}
    size = len(fresh._cache)
    assert fresh.encode(" unheard-of") == tokenizer.encode(" unheard-of") and len(fresh._cache) == size


def test_runs_without_installed_packages():
    code = (
        "from shared.tokenizers import Tokenizer; t = Tokenizer.train(['ab ab'], 258); print(t.decode(t.encode('abé')))"
    )
    command = [sys.executable, "-S", "-X", "utf8", "-c", code]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, encoding="utf-8", check=False)
    assert done.stdout.strip() == "abé", done.stderr


def test_token_ids_may_be_of_any_integer_type():
    numbers = tokenizer.encode("some text")
    assert tokenizer.decode(torch.tensor(numbers)) == tokenizer.decode(numpy.array(numbers)) == "some text"
    with pytest.raises(TypeError):
        tokenizer.decode([1.0])


@pytest.mark.parametrize("number", [-1, 1_004, 10**12])
def test_unknown_token_id_is_rejected(number):
    with pytest.raises(ValueError, match=f"unknown token id {number}; this vocabulary has 1004 tokens"):
        tokenizer.decode([number])


def test_unpaired_surrogate_is_rejected_but_escaped_bytes_are_bytes():
    with pytest.raises(ValueError, match=r"'\\ud83d' is half of a surrogate pair"):
        tokenizer.encode("a\ud83db")
    assert tokenizer.decode_bytes(tokenizer.encode(b"a\xff".decode("utf-8", "surrogateescape"))) == b"a\xff"


def test_ignore_merges_encodes_a_known_word_as_one_token():
    tokens = {token: number for number, token in enumerate([*BYTE_TOKENS, b"ab", b"abc", b"bc"])}
    merges = [(b"b", b"c"), (b"a", b"b")]  # no merge makes "abc"
    assert Tokenizer(tokens, merges).encode("abc") == [tokens[b"a"], tokens[b"bc"]]
    assert Tokenizer(tokens, merges, ignore_merges=True).encode("abc d") == [tokens[b"abc"], tokens[b" "], tokens[b"d"]]


def test_nfc_normalizes_text_but_not_special_tokens():
    composing = Tokenizer(tokenizer.vocab, tokenizer.merges, special_tokens=tokenizer.special_tokens, nfc=True)
    text = "e\u0301 <image>\u0338"
    assert composing.encode(text) == tokenizer.encode(unicodedata.normalize("NFC", text))
    image = tokenizer.special_tokens["<image>"]
    assert image in composing.encode(text, allowed_special=["<image>"]), (
        "a special token is no text that could be composed"
    )


def test_small_texts_give_small_vocabularies():
    small = Tokenizer.train(["ab ab ab"], 1_000, special_tokens=["<|end|>"])
    assert small.merges == [(b"a", b"b"), (b" ", b"ab")] and small.special_tokens == {"<|end|>": 258}
    assert Tokenizer.train(["ab cd ab"], 300, min_frequency=2).merges == [(b"a", b"b")]
    with pytest.raises(ValueError, match="vocab_size=256 is less than 256 bytes and 1 special tokens"):
        Tokenizer.train(["ab"], 256, special_tokens=["<|end|>"])
    with pytest.raises(ValueError, match="given twice: <a>, <a>"):
        Tokenizer.train(["ab"], 300, special_tokens=["<a>", "<a>"])


VOCAB = {token: number for number, token in enumerate([*BYTE_TOKENS, b"ab", b"abc"])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pattern": "gpt9"}, "unknown pattern 'gpt9'"),
        ({"vocab": {token: number for token, number in VOCAB.items() if token != b"x"}}, "no token for 1 of the 256"),
        ({"vocab": VOCAB | {b"abc": 5}}, "no two tokens may share one"),
        ({"vocab": VOCAB | {b"abc": -5}}, "must be 0 to"),
        ({"vocab": VOCAB | {b"abc": 2**40}}, "must be 0 to"),
        ({"special_tokens": {"<end>": 3}}, "no two tokens may share one"),
        ({"special_tokens": {"": 300}}, "must not be an empty text"),
        ({"special_tokens": {"ab": 300}}, "'ab' is also an ordinary token"),
        ({"added_tokens": {"<x>": 3}}, "no two tokens may share one"),
        ({"added_tokens": {"": 300}}, "must not be an empty text"),
        ({"added_tokens": {"ab": 300}}, "'ab' is also an ordinary token"),
        ({"special_tokens": {"<x>": 300}, "added_tokens": {"<x>": 301}}, "'<x>' is a special token and an added token"),
        ({"merges": [(b"b", b"c")]}, "merge 0, b'b' and b'c': there is no token b'bc'"),
        ({"merges": [(b"bc", b"a")]}, "there is no token b'bc'"),
        ({"merges": [(b"ab", b"c"), (b"a", b"b")]}, "merge 1 makes b'ab', which an earlier merge already joins"),
        ({"merges": [(b"a", b"b"), (b"a", b"b")]}, "the same merge is given twice"),
    ],
)
def test_inconsistent_parts_are_rejected(change, message):
    parts = {"vocab": VOCAB, "merges": [(b"a", b"b"), (b"ab", b"c")]}
    Tokenizer(**parts)
    with pytest.raises(ValueError, match=message):
        Tokenizer(**parts | change)
