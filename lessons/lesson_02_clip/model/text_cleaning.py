"""What OpenAI's CLIP does to a text before it looks at it (its released code, `simple_tokenizer.py`).

Its captions came from web pages, so it first repairs them: mojibake ("Ã©" where "é" was meant), HTML entities, runs of
white space, capital letters. Each repair makes one spelling of many, and the text tower has so many fewer to learn.
"""

import html
import re
import unicodedata


def clean(text: str) -> str:
    """The text as CLIP reads it: repaired, entities resolved (twice, as web pages tend to need), white space single,
    lower case."""
    text = html.unescape(html.unescape(repair(text)))
    return re.sub(r"\s+", " ", text).strip().lower()


def repair(text: str) -> str:
    """What CLIP left to the library ftfy, in its common cases: entities, mojibake, typographic signs, invisible
    characters, and Unicode's composed form.

    The library weighs how unlikely a spelling is; here a run of characters is taken for mojibake when its bytes are
    valid UTF-8, which accidents almost never are. What can't be repaired stays.
    """
    if "<" not in text:  # where there are tags, entities are meant as entities
        text = html.unescape(text)
    while (repaired := _MOJIBAKE.sub(_decoded, text)) != text:
        text = repaired
    text = _C1.sub(_as_windows, _TERMINAL.sub("", text)).replace("\r\n", "\n").translate(_PLAIN)
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", text))


# ── Mojibake: bytes of UTF-8 that somebody has read as Windows-1252 ──────────────────────────────────────────────────


def _windows_byte(character: str) -> int:
    """The byte that Windows-1252 writes it as; where that has none, Latin-1 (as all web browsers do)."""
    try:
        return character.encode("cp1252")[0]
    except UnicodeEncodeError:
        return ord(character)


def _windows_character(byte: int) -> str:
    try:
        return bytes([byte]).decode("cp1252")
    except UnicodeDecodeError:
        return chr(byte)


def _decoded(found: re.Match[str]) -> str:
    try:
        return bytes(map(_windows_byte, found[0])).decode("utf-8")
    except UnicodeDecodeError:
        return found[0]


def _as_windows(found: re.Match[str]) -> str:
    return _windows_character(ord(found[0]))


def _one_of(first: int, last: int) -> str:
    """Either spelling of each byte, the Latin-1 and the Windows-1252 one, as a class of characters."""
    return "[" + "".join({re.escape(spelling) for byte in range(first, last + 1) for spelling in (chr(byte), _windows_character(byte))}) + "]"  # fmt: skip


# A byte that opens a character of two, three or four bytes, and the bytes that go on with it.
_GOES_ON = _one_of(0x80, 0xBF)
_MOJIBAKE = re.compile(
    f"{_one_of(0xC2, 0xDF)}{_GOES_ON}|{_one_of(0xE0, 0xEF)}{_GOES_ON}{{2}}|{_one_of(0xF0, 0xF4)}{_GOES_ON}{{3}}"
)
_C1 = re.compile("[\x80-\x9f]")

# ── Signs with a plainer form, and characters that have none ─────────────────────────────────────────────────────────

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("ʼ‘’‛", "'"),
        **dict.fromkeys("“”„‟", '"'),
        **dict(zip("ﬀﬁﬂﬃﬄﬅﬆĲĳŉ", ("ff", "fi", "fl", "ffi", "ffl", "ſt", "st", "IJ", "ij", "'n"), strict=True)),
        **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # wide letters, as among East Asian ones
        **dict.fromkeys("\r\u2028\u2029", "\n"),
        "\u3000": " ",
    }
)
_TERMINAL = re.compile(r"\x1b\[[\d;]*[A-Za-z]")  # colours of a terminal
_INVISIBLE = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]")
