"""Types of command-line options for argparse, which state what they accept and refuse everything else by name.

argparse prints the error of a type after the option's name, and ends the command with status 2.
"""

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path

MAX_SEED = 2**63 - 1
"""The largest seed that every random generator accepts."""
MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 4095
"""The longest name of a file, and the longest path, that Linux accepts; other systems allow no longer names."""


def whole_number(minimum: int = 0, maximum: int | None = None) -> Callable[[str], int]:
    """Return an argparse type: a whole number of at least `minimum` and at most `maximum`, if there is one."""
    limits = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum or (maximum is not None and value > maximum):
            raise argparse.ArgumentTypeError(f"{text[:60]!r}; expected a whole number {limits}")
        return value

    return parse


def number(description: str, accepts: Callable[[float], bool]) -> Callable[[str], float]:
    """Return an argparse type: a finite number that `accepts` holds for; `description` states which these are."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and accepts(value)):
            raise argparse.ArgumentTypeError(f"{text[:60]!r}; expected a number {description}")
        return value

    return parse


COUNT = whole_number(1)
"""A number of steps, samples, tokens: at least 1."""
SEED = whole_number(0, MAX_SEED)
PORT = whole_number(0, 65535)
"""0 takes any free port."""
POSITIVE = number("above 0", lambda value: value > 0)
FRACTION = number("from 0 to 1, without 1", lambda value: 0 <= value < 1)


def path(text: str) -> Path:
    """Return the path that `text` names, an argparse type; the file need not exist.

    Every look at a path that is too long raises an OSError, even the question whether it exists.
    """
    longest = max((len(os.fsencode(part)) for part in Path(text).parts), default=0)
    if longest > MAX_NAME_BYTES or len(os.fsencode(text)) > MAX_PATH_BYTES:
        raise argparse.ArgumentTypeError(
            f"{text[:60]!r}…; expected a path with names of at most {MAX_NAME_BYTES} bytes"
        )
    return Path(text)


def file_or_dataset(text: str) -> str:
    """Return the text, an argparse type: a path as `path` accepts it, or a data set's name such as "coco:val2017"."""
    path(text)
    return text
