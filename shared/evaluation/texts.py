"""Refuse a text where a list is due, and values that are no text: both would be scored letter by letter, or not at all.

In Python a text is a sequence of texts, its letters. Without these checks `score_captions({1: "a"}, {1: "a cat"})`
compares the caption with the references "a", " ", "c", "a", "t" and returns scores that look right.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def require_text(value: Any, name: str) -> None:
    """Raise ValueError, which calls the value `name`, unless it is a text."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {_describe(value)}; expected a text")


def require_texts(values: Any, name: str) -> None:
    """Raise ValueError unless the values are a list (or another sequence) of texts, and not one text."""
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise ValueError(f"{name} is {_describe(values)}; expected a list of texts")
    for number, value in enumerate(values):
        require_text(value, f"{name}[{number}]")


def require_mapping(values: Any, name: str) -> None:
    """Raise ValueError unless the values are a mapping from keys, such as a dictionary."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{name} is {_describe(values)}; expected a dictionary from image or question to its texts")


def require_words(candidates: Iterable[Any], references: Iterable[Any]) -> None:
    """Raise ValueError unless each candidate is a list of words, and its references a list of such lists."""
    for row, (candidate, its_references) in enumerate(zip(candidates, references, strict=True)):
        require_texts(candidate, f"candidates[{row}]")
        if isinstance(its_references, str) or not isinstance(its_references, Sequence) or not its_references:
            raise ValueError(f"references[{row}] is {_describe(its_references)}; expected one or more lists of words")
        for number, words in enumerate(its_references):
            require_texts(words, f"references[{row}][{number}]")


def _describe(value: Any) -> str:
    text = repr(value)
    return f"{text[:60]}{'…' if len(text) > 60 else ''} (a {type(value).__name__})"
