"""The 256 bytes as 256 visible characters, so that a token of any bytes can be read, and stand in a text file.

A byte that is a printable character of Latin-1 stands for itself: "a" for 97, "é" for 233. The other 68 (control
characters, the space, 0xAD) take the characters from Ā on, in order: the space is "Ġ", the newline "Ċ".
Byte-level tokenizers have spelled their tokens so since GPT-2 (its released code, `encoder.py`).
"""

_VISIBLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_HIDDEN = [byte for byte in range(256) if byte not in set(_VISIBLE)]
_LETTER = {byte: chr(byte) for byte in _VISIBLE} | {byte: chr(256 + place) for place, byte in enumerate(_HIDDEN)}
_BYTE = {ord(letter): byte for byte, letter in _LETTER.items()}

# The first 256 tokens, in the order of their letters. Ties between pairs fall by it: it is part of what is trained.
BYTE_TOKENS = tuple(bytes([byte]) for byte in _VISIBLE + _HIDDEN)


def bytes_to_unicode(token: bytes) -> str:
    """Return the token in visible characters: " the" is "Ġthe"."""
    return token.decode("latin-1").translate(_LETTER)


def unicode_to_bytes(letters: str) -> bytes:
    """Return the bytes that are spelled so. Raises ValueError for a character that spells no byte."""
    strangers = [letter for letter in letters if ord(letter) not in _BYTE]
    if strangers:
        raise ValueError(f"{letters!r} is no byte-level token: {strangers[0]!r} spells no byte")
    return letters.translate(_BYTE).encode("latin-1")
