"""The data of the part `vae`: digits as counts of ink points, and noise for the codes."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from shared.stdlib import digits

TRIALS = digits.MAX_PIXEL
"""The greatest count of a pixel."""


class Images(NamedTuple):
    """Digits as flattened counts from 0 to `TRIALS`, and their labels."""

    train: Float[Tensor, "train pixels"]
    train_labels: Int[Tensor, " train"]
    test: Float[Tensor, "test pixels"]
    test_labels: Int[Tensor, " test"]


def load_images(seed: int) -> Images:
    """Return all digits; the random fifth that `seed` selects is the test set."""
    data = digits.load()
    training, test = (data.subset(rows) for rows in digits.train_test_split(len(data.images), 0.2, seed))
    return Images(
        torch.tensor(training.images) * 1.0,
        torch.tensor(training.labels),
        torch.tensor(test.images) * 1.0,
        torch.tensor(test.labels),
    )


def noise_augmentation(width: int) -> Callable:
    """Return an augmentation that adds to a batch of images the noise for sampling their codes.

    So a training step is a function of its batch alone.
    """

    def augment(images: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        return images, torch.randn(len(images), width, generator=generator)

    return augment
