"""The data of the part `cnn`: handwritten digits at random positions of an empty canvas, and augmented photographs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from data.datasets.digits import digits
from data.datasets.tensors import to_pixels

DIGIT = 8
CANVAS = 16
POSITIONS = CANVAS - DIGIT + 1
"""Number of rows, and of columns, at which a digit can start."""

EVERYWHERE = (0, POSITIONS)
# The two halves share no column; the middle column belongs to neither.
LEFT, RIGHT = (0, POSITIONS // 2), (POSITIONS - POSITIONS // 2, POSITIONS)
COPIES = 4
"""Number of positions at which each held-out digit is shown."""


@dataclass(frozen=True)
class Digits:
    """Unshifted digits, with ink scaled to 0…1, and a held-out test part."""

    train: Float[Tensor, "train 1 8 8"]
    train_labels: Int[Tensor, " train"]
    test: Float[Tensor, "test 1 8 8"]
    test_labels: Int[Tensor, " test"]


def load_digits() -> Digits:
    """Return the 1,797 digits; a random fifth, the same in every run, is held out."""
    dataset = digits()
    labels = [torch.from_numpy(labels) for labels in (dataset.train_labels, dataset.test_labels)]
    return Digits(to_pixels(dataset.train_images), labels[0], to_pixels(dataset.test_images), labels[1])


def place_on_canvas(
    images: Float[Tensor, "batch channels height width"],
    rows: Int[Tensor, " batch"],
    columns: Int[Tensor, " batch"],
    side: int = CANVAS,
) -> Float[Tensor, "batch channels side side"]:
    """Place each image on an empty canvas, its top left corner at its row and column.

    Raises ValueError when an image would extend beyond the canvas.
    """
    batch, channels, height, width = images.shape
    for name, starts, length in (("row", rows, height), ("column", columns, width)):
        if len(starts) and (int(starts.min()) < 0 or int(starts.max()) > side - length):
            raise ValueError(
                f"{name}s run from {int(starts.min())} to {int(starts.max())}; on a canvas of {side} an image of "
                f"{length} can start at 0 to {side - length}"
            )
    canvas = images.new_zeros(batch, channels, side, side)
    # exercise 0.15: place digits on a canvas
    sample = torch.arange(batch, device=images.device)[:, None, None]
    y = (rows[:, None] + torch.arange(height, device=images.device))[:, :, None]
    x = (columns[:, None] + torch.arange(width, device=images.device))[:, None, :]
    # Indexed by [batch, height, width], the channel axis comes last.
    canvas[sample, :, y, x] = images.permute(0, 2, 3, 1)
    return canvas
    # end exercise


def shift_randomly(images: Tensor, columns: tuple[int, int], generator: Generator) -> Tensor:
    """Place each image at a random row, and at a random column in columns[0] … columns[1] − 1."""

    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (len(images),), generator=generator, device=images.device)

    return place_on_canvas(images, draw(*EVERYWHERE), draw(*columns))


def shift_augmentation(columns: tuple[int, int]) -> Callable:
    """Return an augmentation of batches (digits, labels) that places each digit at a new random position."""

    def augment(batch: tuple[Tensor, Tensor], generator: Generator) -> tuple[Tensor, Tensor]:
        images, labels = batch
        return shift_randomly(images, columns, generator), labels

    return augment


def shifted_test_digits(data: Digits, columns: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return every held-out digit at several fixed positions of these columns: (canvases, labels)."""
    generator = torch.Generator().manual_seed(0)
    return shift_randomly(data.test.repeat(COPIES, 1, 1, 1), columns, generator), data.test_labels.repeat(COPIES)
