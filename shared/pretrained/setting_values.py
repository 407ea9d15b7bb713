"""What the values of published settings may be: each function converts a value of a JSON file or raises ValueError.

The message of the ValueError completes "expected …".
"""

import math
from collections.abc import Callable, Collection
from typing import Any

Accept = Callable[[Any], Any]


def integer(minimum: int | None = 1) -> Accept:
    """Accept a whole number, by default one that counts something and so is at least 1."""

    def accept(value: Any) -> int:
        # JSON's true and false are integers in Python.
        if isinstance(value, bool) or not isinstance(value, int) or (minimum is not None and value < minimum):
            raise ValueError("a whole number" if minimum is None else f"a whole number of at least {minimum}")
        return value

    return accept


def number(minimum: float = 0.0, *, above: bool = False, below: float = math.inf) -> Accept:
    """Accept a finite number from `minimum` (or only above it) to less than `below`."""

    def accept(value: Any) -> float:
        valid = isinstance(value, int | float) and not isinstance(value, bool) and minimum <= value < below
        if not valid or (above and value == minimum):
            limit = "" if below == math.inf else f" and below {below:g}"
            raise ValueError(f"a number {'above' if above else 'of at least'} {minimum:g}{limit}")
        return float(value)

    return accept


def flag(value: Any) -> bool:
    """Accept true or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def text(value: Any) -> str:
    """Accept a string."""
    if not isinstance(value, str):
        raise ValueError("a string")
    return value


def one_of(choices: Collection[str]) -> Accept:
    """Accept one of some names."""

    def accept(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return value

    return accept


def optional(accept: Accept) -> Accept:
    """Accept null, and what `accept` accepts."""

    def accept_or_null(value: Any) -> Any:
        return None if value is None else accept(value)

    return accept_or_null


def sides(value: Any) -> int | tuple[int, int]:
    """Accept the side of a square, or [height, width]."""
    if isinstance(value, list | tuple) and len(value) == 2:
        try:
            return integer()(value[0]), integer()(value[1])
        except ValueError:
            pass
    elif isinstance(value, int):
        return integer()(value)
    raise ValueError("a whole number of at least 1, or two as height and width")


def square(value: Any) -> int:
    """Accept the side of a square, also as [side, side]."""
    size = sides(value)
    if isinstance(size, int):
        return size
    if size[0] != size[1]:
        raise ValueError("equal sides (only squares are supported)")
    return size[0]


def matching_default(default: Any) -> Accept:
    """Accept values of the default's type: counts from 1, and other numbers from 0."""
    if isinstance(default, bool):
        return flag
    if isinstance(default, int):
        return integer()
    if isinstance(default, float):
        return number()
    if isinstance(default, str):
        return text
    raise TypeError(f"the default {default!r} does not say what is accepted; give the setting an `accept`")
