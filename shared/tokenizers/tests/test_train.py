"""Test that the learned merges equal the definition's and those of the `tokenizers` library."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.tokenizers.byte_alphabet import BYTE_TOKENS, bytes_to_unicode, unicode_to_bytes
from shared.tokenizers.tests.examples import FIXED
from shared.tokenizers.tests.oracle import TEXTS, merges_of, spelled, trained_library
from shared.tokenizers.train import count_words, learn_merges


def merges_by_definition(counts: dict[bytes, int], number: int, min_frequency: int = 1) -> list[tuple[bytes, bytes]]:
    """Count every pair anew before each merge; the most frequent wins, of several the one of the oldest tokens."""
    age = {token: place for place, token in enumerate(BYTE_TOKENS)}
    words = [[[bytes([byte]) for byte in word], count] for word, count in counts.items()]
    merges = []
    while len(merges) < number:
        frequency = Counter()
        for word, count in words:
            for left, right in pairwise(word):
                frequency[left, right] += count
        if not frequency or max(frequency.values()) < min_frequency:
            break
        pair = min(frequency, key=lambda pair: (-frequency[pair], age[pair[0]], age[pair[1]]))
        merges.append(pair)
        age[pair[0] + pair[1]] = len(age)
        for entry in words:
            joined, place = [], 0
            while place < len(entry[0]):
                pair_at_place = tuple(entry[0][place : place + 2])
                joined.append(pair[0] + pair[1] if pair_at_place == pair else entry[0][place])
                place += 2 if pair_at_place == pair else 1
            entry[0] = joined
    return merges


@pytest.mark.parametrize("number", [0, 1, 40, 1500])
@pytest.mark.parametrize("name", TEXTS)
def test_merges_equal_the_library_in_order(name, number):
    learned = learn_merges(count_words([TEXTS[name]], "llama3"), number)
    assert spelled(learned) == merges_of(trained_library([TEXTS[name]], 256 + number, "llama3"))
    if number == 1500 and name in ("english", "code", "many scripts", "random bytes"):
        assert len(learned) == 1500, "the text is too short to try so many merges"


@pytest.mark.parametrize("pattern", ["gpt2", "qwen2"])
def test_merges_equal_the_library_for_every_pattern_and_several_texts(pattern):
    texts = [TEXTS["english"][:20_000], TEXTS["many scripts"][:5_000], "", TEXTS["code"][:20_000]]
    assert spelled(learn_merges(count_words(texts, pattern), 300)) == merges_of(trained_library(texts, 556, pattern))


@pytest.mark.parametrize("min_frequency", [2, 7, 10**9])
def test_min_frequency_equals_the_library(min_frequency):
    learned = learn_merges(count_words([TEXTS["code"][:9_000]]), 3_000, min_frequency=min_frequency)
    library = trained_library([TEXTS["code"][:9_000]], 3_256, min_frequency=min_frequency)
    assert spelled(learned) == merges_of(library) and len(learned) < 3_000


words = st.text(st.sampled_from("abcé"), min_size=1, max_size=12)


@settings(max_examples=150, **FIXED)
@given(st.lists(words, max_size=12))
def test_ties_and_overlaps_equal_the_definition(chosen):
    text = " ".join(chosen)
    counts = count_words([text])
    learned = learn_merges(counts, 60)
    assert learned == merges_by_definition(counts, 60)
    assert spelled(learned) == merges_of(trained_library([text], 316))


@settings(max_examples=100, **FIXED)
@given(st.dictionaries(st.binary(max_size=9), st.integers(1, 5), max_size=9), st.integers(1, 4))
def test_merges_of_any_bytes_equal_the_definition(counts, min_frequency):
    learned = learn_merges(counts, 30, min_frequency=min_frequency)
    assert learned == merges_by_definition(counts, 30, min_frequency)


def test_merges_do_not_depend_on_the_order_of_the_counts():
    counts = count_words([TEXTS["words of two letters"]])
    assert learn_merges(counts, 100) == learn_merges(dict(reversed(counts.items())), 100)


def test_words_are_counted_over_all_texts():
    assert count_words(["a a b", " a"], "gpt2") == {b"a": 1, b" a": 2, b" b": 1}


def test_invalid_texts_are_rejected():
    with pytest.raises(ValueError, match=r"give a list, \[text\]"):
        count_words("ab ab")
    with pytest.raises(ValueError, match=r"'\\ud800' is half of a surrogate pair"):
        count_words(["a\ud800"])


@pytest.mark.parametrize("wrong", [{"max_merges": -1}, {"max_merges": 1, "min_frequency": 0}])
def test_arguments_out_of_range_are_rejected(wrong):
    with pytest.raises(ValueError, match=r"must not be negative"):
        learn_merges({b"ab": 1}, **wrong)


def test_every_byte_has_its_own_printable_character():
    assert sorted(BYTE_TOKENS) == [bytes([byte]) for byte in range(256)]
    letters = [bytes_to_unicode(token) for token in BYTE_TOKENS]
    assert letters == sorted(letters) and len(set(letters)) == 256 and all(letter.isprintable() for letter in letters)
    assert [bytes_to_unicode(token) for token in (b" the", b"\n", "é".encode())] == ["Ġthe", "Ċ", "Ã©"]
    assert unicode_to_bytes("".join(letters)) == b"".join(BYTE_TOKENS)
    with pytest.raises(ValueError, match="stands for no byte"):
        unicode_to_bytes("a b")
