"""Toy-world images as PyTorch tensors."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from data.toybox.image import render_images
from data.toybox.scene import Scene

IMAGE_SIZE = 32
"""Side of an image in pixels, in every lesson that trains on 32 × 32 images."""


def render_tensors(scenes: Sequence[Scene], size: int = IMAGE_SIZE) -> UInt8[Tensor, "scenes 3 size size"]:
    """Render scenes as uint8 RGB images, channels first."""
    return torch.from_numpy(render_images(scenes, size)).permute(0, 3, 1, 2).contiguous()


def normalize_pixels(pixels: UInt8[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch 3 size size"]:
    """Scale byte pixels to about zero mean: x / 64 − 3.25. Most pixels of an image are light background."""
    return pixels.float() / 64 - 3.25
