"""Clean a text as OpenAI's CLIP does before tokenization (its released code, `simple_tokenizer.py`).

CLIP's captions come from web pages, so they are repaired first: mojibake ("Ã©" where "é" was meant), HTML entities,
runs of white space, capital letters. Each repair maps several spellings to one, so the text encoder has fewer to learn.
"""

import html
import re
import unicodedata
from html.entities import html5


def clean(text: str) -> str:
    """Return the text repaired, with entities resolved twice (as web pages need), single spaces and lower case."""
    text = html.unescape(html.unescape(repair(text)))
    return re.sub(r"\s+", " ", text).strip().lower()


def repair(text: str) -> str:
    """Apply the common repairs of the library ftfy: entities, mojibake, typographic signs, invisible characters, NFC.

    The library weighs how unlikely a spelling is. Here, a run of characters counts as mojibake if its bytes are valid
    UTF-8, unless it is a single letter before signs that may follow it: "CAFÉ’S" and "„Spaß“" stay. What cannot be
    repaired stays, too.
    """
    if "<" not in text:  # with tags, entities are meant literally
        text = _ENTITY.sub(_resolve_entity, text)
    while (repaired := _MOJIBAKE.sub(_decode_run, text)) != text:
        text = repaired
    text = _C1.sub(_as_windows, _TERMINAL.sub("", text)).replace("\r\n", "\n").translate(_PLAIN)
    text = _HALVES.sub("\ufffd", _PAIR.sub(_join_halves, text))
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", text))


# ── Entities ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_ENTITY = re.compile(r"&#?[0-9A-Za-z]{1,24};")
# Also in capital letters, where that is not the name of another entity: &EACUTE; as well as &Eacute;
_CAPITALS = {
    f"&{name.upper()}": character.upper()
    for name, character in html5.items()
    if name.endswith(";") and name == name.lower() and name.upper() not in html5
}


def _resolve_entity(match: re.Match[str]) -> str:
    resolved = _CAPITALS.get(match[0]) or html.unescape(match[0])
    return match[0] if resolved.endswith(";") and resolved != ";" else resolved  # only a part of it was an entity


# ── Mojibake: UTF-8 bytes that were decoded as Windows-1252 ──────────────────────────────────────────────────────────


def _windows_byte(character: str) -> int:
    """Return the character's byte in Windows-1252, or in Latin-1 where that has none (as web browsers do)."""
    try:
        return character.encode("cp1252")[0]
    except UnicodeEncodeError:
        return ord(character)


def _windows_character(byte: int) -> str:
    try:
        return bytes([byte]).decode("cp1252")
    except UnicodeDecodeError:
        return chr(byte)


def _decode_run(match: re.Match[str]) -> str:
    return match[0] if _ends_in_signs(match[0]) else _CHARACTER.sub(_decode_utf8, match[0])


def _decode_utf8(match: re.Match[str]) -> str:
    try:
        return bytes(map(_windows_byte, match[0])).decode("utf-8")
    except UnicodeDecodeError:
        return match[0]


def _ends_in_signs(run: str) -> bool:
    """Return whether a run is one letter with signs that may follow it in a correct text."""
    letter, signs = run[0], run[1:]
    if len(signs) == 1 and letter in "ÂÃÎÐ":  # the first bytes of accented, Greek and Cyrillic letters
        return signs in "’…¥ŒŽ"
    if len(signs) == 1 and letter in "ÒÓÔÕÖ×ÙÚÛÞß":  # and of letters that hardly occur
        return True
    return all(sign in _SIGNS + "¢£¥€ŒœŠšŸŽž" * (len(signs) == 1) for sign in signs)


def _as_windows(match: re.Match[str]) -> str:
    return _windows_character(ord(match[0]))


def _join_halves(match: re.Match[str]) -> str:
    return match[0].encode("utf-16", "surrogatepass").decode("utf-16")


def _byte_class(first: int, last: int) -> str:
    """Return a character class of both spellings of each byte, in Latin-1 and in Windows-1252."""
    spellings = {spelling for byte in range(first, last + 1) for spelling in (chr(byte), _windows_character(byte))}
    return "[" + "".join(map(re.escape, spellings)) + "]"


# The first byte of a character of two, three or four bytes, and its continuation bytes.
_CONTINUATION = _byte_class(0x80, 0xBF)
_CHARACTER = re.compile(
    f"{_byte_class(0xC2, 0xDF)}{_CONTINUATION}|{_byte_class(0xE0, 0xEF)}{_CONTINUATION}{{2}}"
    f"|{_byte_class(0xF0, 0xF4)}{_CONTINUATION}{{3}}"
)
_MOJIBAKE = re.compile(f"(?:{_CHARACTER.pattern})+")
_SIGNS = "‘’‚“”„‹›«»…–—•·´®™©°§¡¿\xa0\xad±²³µ¹¼½¾¶"
_C1 = re.compile("[\x80-\x9f]")

# ── Signs with a plain equivalent, and characters to remove ──────────────────────────────────────────────────────────

_DIGRAPHS = (*range(0x1C4, 0x1CD), *range(0x1F1, 0x1F4))  # Ǆ to ǌ and Ǳ to ǳ
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("ʼ‘’‚‛", "'"),
        **dict.fromkeys("“”„‟", '"'),
        **dict(zip("ﬀﬁﬂﬃﬄﬅﬆĲĳŉ", ("ff", "fi", "fl", "ffi", "ffl", "ſt", "st", "IJ", "ij", "'n"), strict=True)),
        **{
            chr(code): unicodedata.normalize("NFKD", chr(code)) for code in (*range(0x1C4, 0x1CD), *range(0x1F1, 0x1F4))
        },
        # Full-width letters and half-width katakana of East Asian fonts
        **{chr(code): unicodedata.normalize("NFKC", chr(code)) for code in range(0xFF01, 0xFFF0)},
        **dict.fromkeys("\r\u2028\u2029", "\n"),
        "\u3000": " ",
    }
)
_TERMINAL = re.compile(r"\x1b\[[\d;]*[A-Za-z]")  # colors of a terminal
# Halves of characters, as in texts that were cut within a UTF-16 pair; Python encodes none of them.
_PAIR = re.compile(r"[\ud800-\udbff][\udc00-\udfff]")
_HALVES = re.compile(r"[\ud800-\udfff]")
_INVISIBLE = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]")
