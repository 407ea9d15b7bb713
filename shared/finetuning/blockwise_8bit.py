"""Blockwise eight-bit quantization, with which QLoRA's double quantization stores the scales of four-bit weights."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

GROUP = 256


def dynamic_levels() -> Float[Tensor, "256"]:
    """Return the 256 numbers between −1 and 1 that eight bits encode (dynamic tree quantization, arXiv:1511.04561).

    There are seven powers of ten, from 10⁻⁶ to 1, and the larger the power, the more steps in it: 1, 2, 4, … 64. Each
    step is represented by its middle, once with each sign; zero and one complete the list. Small numbers so keep their
    relative precision, and large ones are the most precise.
    """
    levels = [torch.tensor([0.0, 1.0], device="cpu")]
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2**exponent + 1, device="cpu")
        middles = 10.0 ** (exponent - 6) * ((edges[:-1] + edges[1:]) / 2)
        levels += [middles, -middles]
    return torch.cat(levels).sort().values


LEVELS = dynamic_levels()


def quantize_blocks(
    values: Float[Tensor, "count"],
) -> tuple[UInt8[Tensor, "count"], Float[Tensor, "groups"]]:
    """Return the nearest level of each value, and the largest absolute value of each group of 256.

    The last group may be shorter; it is padded with zeros.
    """
    groups = F.pad(values, (0, -len(values) % GROUP)).unflatten(0, (-1, GROUP))
    largest = groups.abs().amax(dim=1)
    relative = (groups * _reciprocal(largest)[:, None]).clamp(-1, 1)
    levels = LEVELS.to(values.device)
    boundaries = (levels[:-1] + levels[1:]) / 2
    return torch.bucketize(relative.flatten()[: len(values)], boundaries).to(torch.uint8), largest


def dequantize_blocks(codes: UInt8[Tensor, "count"], largest: Float[Tensor, "groups"]) -> Float[Tensor, "count"]:
    """Return the values: each code's level times the largest value of its group."""
    levels = LEVELS.to(codes.device)
    return levels[codes.int()] * largest.repeat_interleave(GROUP)[: len(codes)]


def _reciprocal(largest: Float[Tensor, "groups"]) -> Float[Tensor, "groups"]:
    # A group of zeros has no scale; its factor only has to be finite.
    return 1 / largest.clamp(min=1e-38)
