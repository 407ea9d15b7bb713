"""Split a text into words (pre-tokens), which no token may cross.

Without this step a tokenizer learns "dog.", "dog!" and "dog?" as three words. The patterns are the published ones. They
use Unicode's letters `\\p{L}` and numbers `\\p{N}`, which Python's `re` does not support. So a text that is not ASCII
is first rewritten, character by character, as its *character classes*: "a" for any letter, "0" for any number, a tab
for any whitespace, "." for anything else. On these the pattern is a plain ASCII pattern, with the same word boundaries.
"""

import re
import unicodedata
from bisect import bisect_right

# GPT-2: a word includes the space before it; English contractions are separate words ('s, 'll).
# Llama 3 (tiktoken's cl100k): numbers in groups of three; any symbol may begin a word, so that code has ".append".
# Qwen2: as Llama 3, with each digit alone.
PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


def _over_character_classes(pattern: str) -> re.Pattern[str]:
    inside_brackets = pattern.replace(r"\p{L}\p{N}]", "A-Za-z0-9]")
    return re.compile(inside_brackets.replace(r"\p{L}", "[A-Za-z]").replace(r"\p{N}", "[0-9]"), re.ASCII)


_COMPILED = {name: _over_character_classes(pattern) for name, pattern in PATTERNS.items()}

# Python 3.11 to 3.13 use Unicode 14 to 15.1, published tokenizers use Unicode 16. The same text must give the same
# tokens everywhere, so this table lists the letters and numbers added in between (UnicodeData.txt of 14.0 and 16.0).
_ADDED_IN_UNICODE_16 = {
    "a": "1c89-1c8a a7cb-a7cd a7da-a7dc 105c0-105f3 10d4a-10d65 10d6f-10d85 10ec2-10ec4 1123f-11240 11380-11389 1138b "
    "1138e 11390-113b5 113b7 113d1 113d3 11bc0-11be0 11f02 11f04-11f10 11f12-11f33 1342f 13441-13446 13460-143fa "
    "16100-1611d 16d40-16d6c 18cff 1b132 1b155 1df25-1df2a 1e030-1e06d 1e4d0-1e4eb 1e5d0-1e5ed 1e5f0 2b739 2ebf0-2ee5d "
    "31350-323af",
    "0": "10d40-10d49 116d0-116e3 11bf0-11bf9 11f50-11f59 16130-16139 16d70-16d79 1ccf0-1ccf9 1d2c0-1d2d3 1e4f0-1e4f9 "
    "1e5f1-1e5fa",
}
_RANGES = sorted(
    (int(first, 16), int(last or first, 16), name)
    for name, ranges in _ADDED_IN_UNICODE_16.items()
    for first, _, last in (span.partition("-") for span in ranges.split())
)


class _CharacterClasses(dict[int, str]):
    """Map each code point to its character class, computed on first use; for `str.translate`."""

    def __missing__(self, code: int) -> str:
        self[code] = value = chr(code) if code < 128 else character_class(chr(code))
        return value


def character_class(character: str) -> str:
    """Return "a" for a letter, "0" for a number, a tab for whitespace, "." for anything else, in Unicode 16."""
    if character == "ſ":
        return "S"  # the long s: a case-insensitive pattern treats it as an s, and 'ſ as a contraction
    category = unicodedata.category(character)
    if category == "Cn":
        code = ord(character)
        place = bisect_right(_RANGES, (code, 0x110000, "")) - 1
        return _RANGES[place][2] if place >= 0 and code <= _RANGES[place][1] else "."
    return "a" if category[0] == "L" else "0" if category[0] == "N" else "\t" if character.isspace() else "."


_CHARACTER_CLASSES = _CharacterClasses()


def word_bytes(word: str) -> bytes:
    """Return the UTF-8 bytes of a word. Bytes that were decoded with "surrogateescape" are restored.

    Raises ValueError for an unpaired surrogate, which is not a character.
    """
    try:
        return word.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(f"{word[error.start]!a} is half of a surrogate pair and not a character; remove it") from error


def split_words(text: str, pattern: str = "llama3") -> list[str]:
    """Return the words of a text. Their concatenation is the text.

    >>> split_words("Don't stop: 12345 dogs!", "llama3")
    ['Don', "'t", ' stop', ':', ' ', '123', '45', ' dogs', '!']

    Raises ValueError when the pattern is not one of `PATTERNS`.
    """
    if pattern not in PATTERNS:
        raise ValueError(f"unknown pattern {pattern!r}: choose one of {', '.join(PATTERNS)}")
    if text.isascii():
        return _COMPILED[pattern].findall(text)
    matches = _COMPILED[pattern].finditer(text.translate(_CHARACTER_CLASSES))
    return [text[match.start() : match.end()] for match in matches]
