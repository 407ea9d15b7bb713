"""1,797 real handwritten digits, 8×8 pixels each, read with the standard library alone.

They are the test part of UCI's "Optical Recognition of Handwritten Digits", which scikit-learn includes too (license
and attribution: data/DIGITS-LICENSE.md). Each line of data/digits.csv.gz is one digit: 64 pixels row by row, each
from 0 (paper) to 16 (ink), then the label.
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
    """Images as flat lists of 64 integers from 0 to 16, row by row, and their labels from 0 to 9."""

    images: list[list[int]]
    labels: list[int]

    def subset(self, indices: list[int]) -> "Digits":
        """Return the digits at these indices, in this order."""
        return Digits([self.images[index] for index in indices], [self.labels[index] for index in indices])


def load(path: Path = PATH) -> Digits:
    """Return all digits in the order of the file. Raises ValueError, naming the file, when it is damaged."""
    try:
        text = gzip.decompress(path.read_bytes()).decode("ascii")
        rows = [list(map(int, line.split(","))) for line in text.splitlines()]
    except (OSError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} is not a readable gzip file of integers ({error}); restore it with git") from error
    if not rows:
        raise ValueError(f"{path} is empty; restore it with git")
    for number, row in enumerate(rows, start=1):
        if len(row) != SIDE * SIDE + 1 or min(row) < 0 or max(row) > MAX_PIXEL or row[-1] >= CLASSES:
            raise ValueError(
                f"{path}, line {number}: expected 64 pixels from 0 to 16 and a label, got {row}; restore it with git"
            )
    return Digits([row[:-1] for row in rows], [row[-1] for row in rows])


def train_test_split(count: int, test_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Return training and test indices: a random split of range(count) that depends only on the seed."""
    order = list(range(count))
    Random(seed).shuffle(order)
    size = round(count * test_fraction)
    return order[size:], order[:size]


def shift_image(image: list[int], right: int, down: int) -> list[int]:
    """Return the image shifted by whole pixels; the uncovered pixels become 0."""
    return [
        image[(row - down) * SIDE + column - right] if 0 <= row - down < SIDE and 0 <= column - right < SIDE else 0
        for row in range(SIDE)
        for column in range(SIDE)
    ]


def classify_by_nearest_mean(training: Digits, images: list[list[int]]) -> list[int]:
    """Return for each image the class whose mean training image is nearest: a simple baseline."""
    means = []
    for digit in range(CLASSES):
        in_class = [image for image, label in zip(training.images, training.labels, strict=True) if label == digit]
        means.append([sum(column) / len(in_class) for column in zip(*in_class, strict=True)])
    return [min(range(CLASSES), key=lambda digit: dist(image, means[digit])) for image in images]
