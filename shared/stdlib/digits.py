"""1,797 real handwritten digits, 8×8 pixels each, read with nothing but the standard library.

They are the test part of UCI's "Optical Recognition of Handwritten Digits", the set that scikit-learn carries
(license and attribution: data/DIGITS-LICENSE.md). One line of data/digits.csv.gz is one digit: 64 pixels row by row,
each from 0 (paper) to 16 (ink), then the digit itself.
"""

import gzip
import zlib
from math import dist
from pathlib import Path
from random import Random
from typing import NamedTuple

SIDE = 8
CLASSES = 10
MAX_PIXEL = 16
PATH = Path(__file__).parents[2] / "data" / "digits.csv.gz"


class Digits(NamedTuple):
    """Images as flat lists of 64 whole numbers from 0 to 16, row by row, and the digit that each one shows."""

    images: list[list[int]]
    labels: list[int]

    def subset(self, indices: list[int]) -> "Digits":
        return Digits([self.images[index] for index in indices], [self.labels[index] for index in indices])


def load(path: Path = PATH) -> Digits:
    """All digits, in the order of the file. Raises ValueError, naming the file, when it is damaged or holds something else."""
    try:
        text = gzip.decompress(path.read_bytes()).decode("ascii")
        rows = [list(map(int, line.split(","))) for line in text.splitlines()]
    except (OSError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} is no readable gzip file of whole numbers ({error}); fetch it again") from error
    if not rows:
        raise ValueError(f"{path} is empty; fetch it again")
    for number, row in enumerate(rows, start=1):
        if len(row) != SIDE * SIDE + 1 or min(row) < 0 or max(row) > MAX_PIXEL or row[-1] >= CLASSES:
            raise ValueError(
                f"{path}, line {number}: expected 64 pixels from 0 to 16 and a digit, found {row}; fetch it again"
            )
    return Digits([row[:-1] for row in rows], [row[-1] for row in rows])


def train_test_split(count: int, held_out: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices to train on and indices held out: a random share of `count`, the same for the same seed everywhere."""
    order = list(range(count))
    Random(seed).shuffle(order)
    size = round(count * held_out)
    return order[size:], order[:size]


def shift_image(image: list[int], right: int, down: int) -> list[int]:
    """The image moved by whole pixels; what leaves is lost, what comes in is paper."""
    return [
        image[(row - down) * SIDE + column - right] if 0 <= row - down < SIDE and 0 <= column - right < SIDE else 0
        for row in range(SIDE)
        for column in range(SIDE)
    ]


def classify_by_nearest_mean(training: Digits, images: list[list[int]]) -> list[int]:
    """The simplest reader, for others to be measured against: which digit's average training image lies nearest?"""
    means = []
    for digit in range(CLASSES):
        same = [image for image, label in zip(training.images, training.labels, strict=True) if label == digit]
        means.append([sum(column) / len(same) for column in zip(*same, strict=True)])
    return [min(range(CLASSES), key=lambda digit: dist(image, means[digit])) for image in images]
