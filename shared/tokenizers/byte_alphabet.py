"""Represent the 256 bytes as 256 printable characters, so that any token can be shown and stored in a text file.

A byte that is a printable Latin-1 character stands for itself: "a" for 97, "é" for 233. The other 68 bytes (control
characters, the space, 0xAD) take the characters from U+0100 on, in order: the space is "Ġ", the newline "Ċ".
This is the `bytes_to_unicode` mapping of GPT-2 (released code, `encoder.py`), which all byte-level tokenizers use.
"""

_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_UNPRINTABLE = [byte for byte in range(256) if byte not in set(_PRINTABLE)]
_CHARACTER = {byte: chr(byte) for byte in _PRINTABLE} | {
    byte: chr(256 + index) for index, byte in enumerate(_UNPRINTABLE)
}
_BYTE = {ord(character): byte for byte, character in _CHARACTER.items()}

# The first 256 tokens, sorted by their characters. BPE training breaks ties by this order, so it is part of the result.
BYTE_TOKENS = tuple(bytes([byte]) for byte in _PRINTABLE + _UNPRINTABLE)


def bytes_to_unicode(token: bytes) -> str:
    """Return the token in printable characters: b" the" becomes "Ġthe"."""
    return token.decode("latin-1").translate(_CHARACTER)


def unicode_to_bytes(text: str) -> bytes:
    """Return the bytes that the characters stand for. Raises ValueError for a character that stands for no byte."""
    unknown = [character for character in text if ord(character) not in _BYTE]
    if unknown:
        raise ValueError(f"{text!r} is not a byte-level token: {unknown[0]!r} stands for no byte")
    return text.translate(_BYTE).encode("latin-1")
