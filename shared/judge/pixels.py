"""Images of any size and number format as the judge's input, with clear errors for what it cannot judge."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from shared.judge.model import IMAGE_SIZE

SMALLEST = 32
"""Smallest side of an image in pixels that is judged. In an image of 16 pixels, some textures are equal."""


def to_judge_pixels(images: Tensor) -> Float[Tensor, "batch 3 64 64"]:
    """Return images as float32 pixels between 0 and 1, of the judge's size.

    images  [batch, 3, size, size], uint8 from 0 to 255 or floating point from 0 to 1, at least 32 × 32

    Raises ValueError for another shape, dtype or range.
    """
    check_images(images)
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    return resize_pixels(pixels)


def check_images(images: object) -> None:
    """Raise ValueError unless `images` is what `to_judge_pixels` accepts."""
    if not isinstance(images, Tensor):
        raise ValueError(
            f"images are a {type(images).__name__}; expected a tensor [batch, 3, size, size] such as "
            "data.toybox.tensors.render_tensors returns"
        )
    shape = tuple(images.shape)
    if images.ndim != 4 or shape[1] != 3 or shape[2] != shape[3]:
        hint = "; move the channels to axis 1: images.permute(0, 3, 1, 2)" if shape[3:] == (3,) else ""
        raise ValueError(f"images have the shape {list(shape)}; expected [batch, 3, size, size]{hint}")
    if shape[2] < SMALLEST:
        raise ValueError(f"images of {shape[2]} × {shape[3]} pixels are too small; expected at least {SMALLEST}")
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}; expected torch.uint8 (0 to 255) or floating point (0 to 1)")
    if not images.numel():
        return
    lowest, highest = float(images.min()), float(images.max())
    if not (lowest >= 0 and highest <= 1):  # also refuses NaN
        raise ValueError(
            f"pixels lie between {lowest:g} and {highest:g}; expected 0 to 1: rescale them (from −1 to 1: "
            "(images + 1) / 2) and clamp them"
        )


def resize_pixels(pixels: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch 3 64 64"]:
    """Bring pixels to the judge's size: repeated where that is exact, else interpolated with antialiasing."""
    size = pixels.shape[-1]
    if size == IMAGE_SIZE:
        return pixels
    if IMAGE_SIZE % size == 0:
        return F.interpolate(pixels, size=(IMAGE_SIZE, IMAGE_SIZE), mode="nearest")
    resized = F.interpolate(pixels, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", antialias=True)
    return resized.clamp(0, 1)
