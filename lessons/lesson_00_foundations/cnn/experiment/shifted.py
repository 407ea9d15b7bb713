"""Real digits, 8×8 pixels, each laid at some place of a larger empty canvas."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from data.datasets.digits import digits

DIGIT = 8
CANVAS = 16
PLACES = CANVAS - DIGIT + 1
"""How many rows, and how many columns, a digit can begin at."""

EVERYWHERE = (0, PLACES)
# The two halves share no column of places: the one in the middle belongs to neither.
LEFT, RIGHT = (0, PLACES // 2), (PLACES - PLACES // 2, PLACES)
COPIES = 4
"""At how many places each held-out digit is shown."""


@dataclass(frozen=True)
class Digits:
    """Digits as they are, ink from 0 to 1."""

    train: Float[Tensor, "train 1 8 8"]
    train_labels: Int[Tensor, " train"]
    test: Float[Tensor, "test 1 8 8"]
    test_labels: Int[Tensor, " test"]


def read_digits() -> Digits:
    """The 1,797 digits, a random fifth of them, the same in every run, held out."""
    found = digits()

    def pixels(images) -> Tensor:
        return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255

    labels = [torch.from_numpy(labels) for labels in (found.train_labels, found.test_labels)]
    return Digits(pixels(found.train_images), labels[0], pixels(found.test_images), labels[1])


def place(
    images: Float[Tensor, "batch channels height width"],
    rows: Int[Tensor, " batch"],
    columns: Int[Tensor, " batch"],
    side: int = CANVAS,
) -> Float[Tensor, "batch channels side side"]:
    """Lay each image on an empty canvas, its top left corner at its row and column.

    Raises ValueError when one would hang over the edge.
    """
    batch, channels, height, width = images.shape
    for name, starts, length in (("row", rows, height), ("column", columns, width)):
        if len(starts) and (int(starts.min()) < 0 or int(starts.max()) > side - length):
            raise ValueError(
                f"{name}s run from {int(starts.min())} to {int(starts.max())}; on a canvas of {side} an image of "
                f"{length} begins at 0 to {side - length}"
            )
    canvas = images.new_zeros(batch, channels, side, side)
    # exercise 0.15: lay digits on a canvas
    sample = torch.arange(batch, device=images.device)[:, None, None]
    down = (rows[:, None] + torch.arange(height, device=images.device))[:, :, None]
    right = (columns[:, None] + torch.arange(width, device=images.device))[:, None, :]
    # Indexed [batch, height, width], the channels come along, last.
    canvas[sample, :, down, right] = images.permute(0, 2, 3, 1)
    return canvas
    # end exercise


def scatter(images: Tensor, columns: tuple[int, int], generator: Generator) -> Tensor:
    """Each image at a random row, and at a random column from columns[0] up to and without columns[1]."""

    def choose(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (len(images),), generator=generator, device=images.device)

    return place(images, choose(*EVERYWHERE), choose(*columns))


def scattered(columns: tuple[int, int]) -> Callable:
    """Augmentation of a batch (digits, labels): lay each digit at a new random place."""

    def augment(batch: tuple[Tensor, Tensor], generator: Generator) -> tuple[Tensor, Tensor]:
        images, labels = batch
        return scatter(images, columns, generator), labels

    return augment


def held_out(data: Digits, columns: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Every held-out digit at some places of these columns, always the same ones: (canvases, labels)."""
    generator = torch.Generator().manual_seed(0)
    return scatter(data.test.repeat(COPIES, 1, 1, 1), columns, generator), data.test_labels.repeat(COPIES)
