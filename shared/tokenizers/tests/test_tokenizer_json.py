"""Test that tokenizer.json files are exchanged with the library, and that unsupported files are rejected."""

import json
import pickle

import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import GPT2Tokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

from shared.errors import CourseError
from shared.tokenizers import PATTERNS, TextStream, Tokenizer, load_tokenizer, save_tokenizer
from shared.tokenizers.byte_alphabet import BYTE_TOKENS, bytes_to_unicode
from shared.tokenizers.tests.oracle import ADVERSARIAL, SCRIPTS, TEXTS, library

SPECIAL_TOKENS = ["<|begin|>", "<image>", "<|Ende der Übung|>"]
CORPUS = [TEXTS["english"][:10_000], SCRIPTS]
SAMPLES = [*ADVERSARIAL, *(text[:3_000] for text in TEXTS.values()), "e\u0301 <image> x <|Ende der Übung|><|begin|>"]
trained = {name: Tokenizer.train(CORPUS, 700, special_tokens=SPECIAL_TOKENS, pattern=name) for name in PATTERNS}


def same(tokenizer: Tokenizer, reference: tokenizers.Tokenizer) -> None:
    for text in SAMPLES:
        numbers = tokenizer.encode(text, allowed_special=tokenizer.special_tokens)
        assert numbers == reference.encode(text, add_special_tokens=False).ids, ascii(text[:60])
        assert tokenizer.decode(numbers) == reference.decode(numbers, skip_special_tokens=False)


@pytest.mark.parametrize("nfc", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_library_and_the_course_load_the_saved_file(pattern, nfc, tmp_path):
    tokenizer = Tokenizer(
        trained[pattern].vocab,
        trained[pattern].merges,
        special_tokens=trained[pattern].special_tokens,
        pattern=pattern,
        nfc=nfc,
    )
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
    reference = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    same(tokenizer, reference)
    assert reference.get_vocab_size() == tokenizer.vocab_size
    again = load_tokenizer(tmp_path / "tokenizer.json")
    for part in ("vocab", "merges", "special_tokens", "added_tokens", "pattern", "ignore_merges", "nfc"):
        assert getattr(again, part) == getattr(tokenizer, part)
    # What the library makes of it, in its own spelling, is still the same to us.
    reference.save(str(tmp_path / "reference.json"))
    again = load_tokenizer(tmp_path / "reference.json")
    assert (again.vocab, again.merges, again.special_tokens) == (
        tokenizer.vocab,
        tokenizer.merges,
        tokenizer.special_tokens,
    )


def test_transformers_loads_the_saved_file(tmp_path):
    tokenizer = trained["llama3"]
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
    reference = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    for text in SAMPLES:
        assert reference(text, add_special_tokens=False).input_ids == tokenizer.encode(
            text, allowed_special=tokenizer.special_tokens
        )


def test_file_has_one_readable_merge_per_line(tmp_path):
    save_tokenizer(trained["llama3"], tmp_path / "new folder" / "tokenizer.json")
    lines = (tmp_path / "new folder" / "tokenizer.json").read_text(encoding="utf-8").splitlines()
    assert '   "Ġ t",' in lines and '   "i n",' in lines


def of_the_library(pre_tokenizer, *, special_tokens=("<|begin|>",), normalizer=None, **trainer) -> tokenizers.Tokenizer:
    reference = tokenizers.Tokenizer(models.BPE())
    reference.pre_tokenizer, reference.decoder = pre_tokenizer, decoders.ByteLevel()
    if normalizer:
        reference.normalizer = normalizer
    alphabet = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()} | trainer
    reference.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=700, special_tokens=list(special_tokens), show_progress=False, **alphabet),
    )
    return reference


@pytest.mark.parametrize(
    ("pre_tokenizer", "name"),
    [
        (pre_tokenizers.ByteLevel(add_prefix_space=False), "gpt2"),
        (pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=False)]), "gpt2"),
        (library("gpt2").pre_tokenizer, "gpt2"),
        (library("llama3").pre_tokenizer, "llama3"),
        (library("qwen2").pre_tokenizer, "qwen2"),
    ],
)
def test_files_of_the_library_are_loaded(pre_tokenizer, name, tmp_path):
    """With its special tokens first, a normalizer, a post-processor, and tokens added later."""
    reference = of_the_library(pre_tokenizer, normalizer=normalizers.NFC())
    reference.add_special_tokens(["<|later|>"])
    reference.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", reference.token_to_id("<|begin|>"))]
    )
    reference.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    assert (tokenizer.pattern, tokenizer.nfc) == (name, True)
    assert tokenizer.special_tokens == {"<|begin|>": 0, "<|later|>": 700} and tokenizer.vocab_size == 701
    same(tokenizer, reference)
    save_tokenizer(tokenizer, tmp_path / "again.json")
    same(tokenizer, tokenizers.Tokenizer.from_file(str(tmp_path / "again.json")))


def text_token(content, **options):
    """Return an added token that is ordinary text, as `<tool_call>` in Qwen2's file."""
    return AddedToken(content, special=False, **{"normalized": False} | options)


@pytest.mark.parametrize("nfc", [False, True])
def test_added_tokens_that_are_not_special_are_text(nfc, tmp_path):
    """They are one token everywhere, decoding keeps them, and saving keeps the flag."""
    reference = of_the_library(library("qwen2").pre_tokenizer, normalizer=normalizers.NFC() if nfc else None)
    added = [text_token("<tool_call>"), text_token("<tool_call>>"), text_token("two words")]
    reference.add_tokens([*added, *([] if nfc else [text_token("normal token", normalized=True)])])
    reference.add_special_tokens(["<|later|>"])
    files = [tmp_path / name for name in ("tokenizer.json", "again.json")]
    reference.save(str(files[0]))
    save_tokenizer(load_tokenizer(files[0]), files[1])
    flags = {token["content"]: token["special"] for token in json.loads(files[1].read_text())["added_tokens"]}
    assert flags["<tool_call>"] is False and flags["<|later|>"] is flags["<|begin|>"] is True
    assert [token["special"] for token in json.loads(files[0].read_text())["added_tokens"]] == [*flags.values()]
    text = "<|begin|>a <tool_call>two words</tool_call>, <tool_call>>normal token two  words<|later|>e\u0301"
    for tokenizer in map(load_tokenizer, files):
        assert tokenizer.added_tokens.keys() == {token for token, special in flags.items() if not special}
        same(tokenizer, reference)
        token_ids = tokenizer.encode(text, allowed_special=tokenizer.special_tokens)
        assert token_ids == reference.encode(text, add_special_tokens=False).ids
        assert set(tokenizer.encode(text)) & set(tokenizer.added_tokens.values()), "they need no permission"
        decoded = tokenizer.decode(token_ids, skip_special_tokens=True)
        assert decoded == reference.decode(token_ids, skip_special_tokens=True) and "<tool_call>two words" in decoded
        stream = TextStream(tokenizer)
        assert "".join(map(stream.write, token_ids)) == decoded
    assert tokenizers.Tokenizer.from_file(str(files[1])).decode(token_ids) == decoded


@pytest.mark.parametrize("tokens", [("<box>", "a <box>"), ("<box>", "two<b"), ("<box>", "<box>2")])
def test_normalized_tokens_that_overlap_others_are_refused(tokens, tmp_path):
    """The library searches for them last, so that `a <box>` would never be found."""
    reference = of_the_library(library("qwen2").pre_tokenizer)
    reference.add_tokens([text_token(tokens[0]), text_token(tokens[1], normalized=True)])
    reference.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CourseError, match=f"the added token '{tokens[1]}' is normalized and overlaps '<b"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_ignore_merges_equals_the_library(tmp_path):
    """As in Llama 3, whose vocabulary has words that its merges cannot make."""
    tokens = {token: number for number, token in enumerate([*BYTE_TOKENS, b"ab", b"bc", b"abc"])}
    tokenizer = Tokenizer(tokens, [(b"b", b"c"), (b"a", b"b")], ignore_merges=True)
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
    same(tokenizer, tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")))
    assert load_tokenizer(tmp_path / "tokenizer.json").encode("abc") == [tokens[b"abc"]]


def test_tokenizer_can_be_pickled():
    again = pickle.loads(pickle.dumps(trained["llama3"]))
    assert again.encode(SCRIPTS) == trained["llama3"].encode(SCRIPTS)


@pytest.fixture
def content(tmp_path):
    save_tokenizer(trained["llama3"], tmp_path / "tokenizer.json")
    return json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))


def _without(content: dict, *path: str) -> None:
    *above, last = path
    for name in above:
        content = content[name]
    del content[last]


REFUSED = {
    "another model": (lambda c: c["model"].update(type="WordPiece"), "its model is WordPiece, expected BPE"),
    "dropout": (lambda c: c["model"].update(dropout=0.1), "dropout is 0.1, supported is only None"),
    "byte fallback": (lambda c: c["model"].update(byte_fallback=True), "byte_fallback is True"),
    "word pieces": (lambda c: c["model"].update(continuing_subword_prefix="##"), "continuing_subword_prefix is '##'"),
    "lower case": (lambda c: c.update(normalizer={"type": "Lowercase"}), "normalizes text by Lowercase"),
    "no pre-tokenizer": (lambda c: c.update(pre_tokenizer=None), "does not end in ByteLevel"),
    "metaspace": (lambda c: c.update(pre_tokenizer={"type": "Metaspace"}), "does not end in ByteLevel"),
    "space before": (
        lambda c: c["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True),
        "add_prefix_space is on",
    ),
    "another pattern": (
        lambda c: c["pre_tokenizer"]["pretokenizers"][0].update(pattern={"Regex": r"\w+"}),
        "its pattern is none of gpt2, llama3, qwen2",
    ),
    "cut out": (lambda c: c["pre_tokenizer"]["pretokenizers"][0].update(behavior="Removed"), "its pattern is none"),
    "stripping token": (lambda c: c["added_tokens"][1].update(lstrip=True), "'<image>' is lstrip"),
    "normalized token": (
        lambda c: (c.update(normalizer={"type": "NFC"}), c["added_tokens"][1].update(normalized=True)),
        "'<image>' is normalized",
    ),
    "special in words": (lambda c: c["added_tokens"][1].update(special="no"), "true or false as special"),
    "a content of numbers": (lambda c: c["added_tokens"][1].update(content=7), "needs a text as content"),
    "a missing byte": (lambda c: _without(c, "model", "vocab", "a"), "no token for 1 of the 256 bytes"),
    "foreign letters": (lambda c: c["model"]["vocab"].update({"▁the": 9_000}), "'▁' stands for no byte"),
    "a merge of three": (lambda c: c["model"]["merges"].append("a b c"), "the merge 'a b c' is not two tokens"),
    "a merge of nothing": (lambda c: c["model"]["merges"].append(["Q", "Q"]), "there is no token b'QQ'"),
    "merges out of order": (lambda c: c["model"]["merges"].reverse(), "which an earlier merge already joins"),
    "a number in words": (lambda c: c["model"]["vocab"].update(a="64"), "a token has the id '64'"),
    "a number twice": (lambda c: c["model"]["vocab"].update(a=5), "no two tokens may share one"),
    "no vocabulary": (
        lambda c: _without(c, "model", "vocab"),
        "not a tokenizer.json as the tokenizers library writes it",
    ),
    "no model": (lambda c: _without(c, "model"), "not a tokenizer.json as the tokenizers library writes it"),
    "merges of numbers": (lambda c: c["model"].update(merges=[1, 2]), "not a tokenizer.json as the tokenizers library"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_file_is_rejected(name, content, tmp_path):
    change, message = REFUSED[name]
    change(content)
    file = tmp_path / "changed.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CourseError) as error:
        load_tokenizer(file)
    assert str(file) in str(error.value) and message in str(error.value)


@pytest.mark.parametrize("raw", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"\x89PNG\r\n\x1a\n"])
def test_invalid_json_is_rejected(raw, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(raw)
    with pytest.raises(CourseError, match="cannot be read as JSON"):
        load_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("raw", [b"[]", b"3", b"null", b'{"model": null}', b'{"model": []}'])
def test_json_of_another_structure_is_rejected(raw, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(raw)
    with pytest.raises(CourseError, match=r"not a tokenizer.json as the tokenizers library writes it"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_error_names_a_missing_file_or_a_folder(tmp_path):
    with pytest.raises(CourseError, match=r"none.json does not exist; a tokenizer is one file"):
        load_tokenizer(tmp_path / "none.json")
    with pytest.raises(CourseError, match="cannot be read"):
        load_tokenizer(tmp_path)


def test_unwritable_file_gives_a_course_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CourseError, match=r"cannot write .*tokenizer.json"):
        save_tokenizer(trained["gpt2"], tmp_path / "file" / "tokenizer.json")


def test_vocabulary_with_missing_bytes_is_rejected(tmp_path):
    reference = of_the_library(pre_tokenizers.ByteLevel(add_prefix_space=False), initial_alphabet=[])
    reference.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CourseError, match="of the 256 bytes"):
        load_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(("kind", "pattern"), [(GPT2Tokenizer, "gpt2"), (Qwen2Tokenizer, "qwen2")])
def test_tokenizers_saved_by_transformers_are_loaded(kind, pattern, tmp_path):
    """With their whole pipelines: GPT-2's, and Qwen2's that composes characters first."""
    source = trained[pattern]
    vocab = {bytes_to_unicode(token): number for token, number in source.vocab.items()} | {"<|endoftext|>": 9_999}
    reference = kind(
        vocab=vocab, merges=[(bytes_to_unicode(left), bytes_to_unicode(right)) for left, right in source.merges]
    )
    reference.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    assert (tokenizer.pattern, tokenizer.nfc) == (pattern, kind is Qwen2Tokenizer)
    assert tokenizer.special_tokens == {"<|endoftext|>": 9_999} and tokenizer.vocab_size == 10_000
    for text in [*SAMPLES, "a<|endoftext|>b"]:
        assert (
            tokenizer.encode(text, allowed_special=tokenizer.special_tokens)
            == reference(text, add_special_tokens=False).input_ids
        )
