"""Parse JSON that other programs wrote: everything wrong in it is a ValueError, and no value is dropped in silence."""

import json
import reprlib
from collections.abc import Iterator
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


class RepeatedKeys(dict[str, Any]):
    """A JSON object with keys that are given more than once; as in every dictionary, the last value counts."""

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.repeated = tuple(name for name in self if names.count(name) > 1)


def parse_json(text: str | bytes) -> Any:
    """Return the content of a JSON text; an object with keys that are given twice is a `RepeatedKeys`.

    Raises ValueError for a text that is no JSON, not UTF-8, or nested more deeply than Python can follow.
    """
    try:
        return json.loads(text, object_pairs_hook=_to_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    return content if len(content) == len(pairs) else RepeatedKeys(pairs)


def repeated_keys(content: Any) -> Iterator[str]:
    """Yield the keys that are given twice in any object of a parsed content, however deep inside."""
    remaining = [content]
    while remaining:
        each = remaining.pop()
        if isinstance(each, RepeatedKeys):
            yield from each.repeated
        remaining += each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()


def has_lone_surrogate(text: str) -> bool:
    """Return whether the text holds half of a UTF-16 pair, which JSON can spell and no file can hold as UTF-8."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def shorten(value: Any) -> str:
    r"""Return a value as Python spells it, on one line of at most 60 characters, however large or nested it is.

    A lone surrogate becomes an escape (\ud800), so that the text can be printed.
    """
    text = _SHORT.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
