"""Test that words are split as the library splits them, for every Unicode character."""

import sys

import pytest
from hypothesis import given, settings
from tokenizers import Regex, pre_tokenizers

from shared.tokenizers.pretokenize import PATTERNS, character_class, split_words
from shared.tokenizers.tests.examples import FIXED, texts, texts_with_half_characters
from shared.tokenizers.tests.oracle import ADVERSARIAL, TEXTS

CUTTERS = {name: pre_tokenizers.Split(Regex(pattern), "isolated") for name, pattern in PATTERNS.items()}


def cut_by_the_library(text: str, pattern: str) -> list[str]:
    return [word for word, _ in CUTTERS[pattern].pre_tokenize_str(text)]


@pytest.mark.parametrize(("expected", "regex"), [("a", r"\p{L}"), ("0", r"\p{N}"), ("\t", r"\s")])
def test_character_classes_equal_the_library(expected, regex):
    """Whatever Unicode this Python knows: the library's is version 16. Planes 4 to 13 are empty, 15 and 16 private."""
    codes = [*range(128, 0xD800), *range(0xE000, 0x40000), *range(0xE0000, 0xE1000), sys.maxunicode]
    characters = [chr(code) for code in codes]
    remover, others = pre_tokenizers.Split(Regex(regex), "removed"), set()
    for start in range(0, len(characters), 4096):
        block = "".join(characters[start : start + 4096])
        others.update("".join(part for part, _ in remover.pre_tokenize_str(block)))
    expected_characters = set(characters) - others
    # The long s stands as itself under 'ſ: it is a letter too.
    characters_found = {
        character for character in characters if character_class(character).replace("S", "a") == expected
    }
    assert [hex(ord(character)) for character in sorted(characters_found ^ expected_characters)] == []


@pytest.mark.parametrize("pattern", PATTERNS)
def test_words_equal_the_library_on_difficult_texts(pattern):
    for text in [*ADVERSARIAL, *TEXTS.values()]:
        assert split_words(text, pattern) == cut_by_the_library(text, pattern), ascii(text[:60])


@settings(max_examples=300, **FIXED)
@given(texts)
def test_words_equal_the_library_on_any_text(text):
    for pattern in PATTERNS:
        assert split_words(text, pattern) == cut_by_the_library(text, pattern)


@settings(**FIXED)
@given(texts_with_half_characters)
def test_words_concatenate_to_the_text(text):
    for pattern in PATTERNS:
        assert "".join(split_words(text, pattern)) == text


def test_gpt2_pattern_equals_the_library_byte_level():
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    for text in ADVERSARIAL:
        ends = [span[1] for _, span in byte_level.pre_tokenize_str(text)]
        assert [sum(map(len, split_words(text, "gpt2")[: at + 1])) for at in range(len(ends))] == ends


def test_differences_between_patterns():
    text = "let's x=12345 .append(\n\n  y)"
    assert split_words(text, "gpt2") == ["let", "'s", " x", "=", "12345", " .", "append", "(", "\n\n ", " y", ")"]
    assert split_words(text, "llama3") == ["let", "'s", " x", "=", "123", "45", " .", "append", "(\n\n", " ", " y", ")"]
    assert split_words(text, "qwen2")[4:9] == list("12345")
    assert split_words("DON'T", "gpt2") == ["DON", "'", "T"] and split_words("DON'T", "llama3") == ["DON", "'T"]


def test_unknown_pattern_is_rejected():
    with pytest.raises(ValueError, match="unknown pattern 'gpt3': choose one of gpt2, llama3, qwen2"):
        split_words("text", "gpt3")
