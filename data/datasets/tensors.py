"""Images of a data set as PyTorch tensors, and the usual augmentation of photographs."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional as F


def to_pixels(images: np.ndarray) -> Float[Tensor, "batch channels height width_px"]:
    """Convert bytes [batch, height, width, channels] to channels-first floats from 0 to 1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def crop_and_flip(
    images: Float[Tensor, "batch channels height width_px"],
    generator: Generator,
    *,
    padding: int = 4,
    mode: Literal["constant", "reflect"] = "constant",
) -> Float[Tensor, "batch channels height width_px"]:
    """Pad each image, crop it at a random position to its size, and mirror half of the images.

    This is the usual augmentation for CIFAR-10 (arXiv:1512.03385, section 4.2).

    padding  pixels on each side
    mode     "constant" pads with zeros, "reflect" with the image's mirrored border
    """
    batch, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4, mode=mode)

    def choose(limit: int) -> Tensor:
        return torch.randint(limit, (batch, 1), generator=generator, device=images.device)

    columns = torch.arange(width, device=images.device)
    columns = torch.where(choose(2).bool(), columns.flip(0), columns) + choose(2 * padding + 1)
    rows = torch.arange(height, device=images.device) + choose(2 * padding + 1)
    sample = torch.arange(batch, device=images.device)[:, None, None]
    # Indexed as [batch, height, width]; the channels stay last.
    return padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
