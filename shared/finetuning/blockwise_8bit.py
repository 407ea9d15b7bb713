"""Eight bits a number, in blocks: how QLoRA's second quantization stores the scales of the first."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

GROUP = 256


def dynamic_levels() -> Float[Tensor, "256"]:
    """The 256 numbers between −1 and 1 that eight bits can name (dynamic tree quantization, arXiv:1511.04561).

    Seven powers of ten, from 10⁻⁶ to 1; the larger the power, the more steps inside it: 1, 2, 4, … 64. Each step is
    named by its middle, once with either sign. Zero and one complete the number. So small numbers keep their
    relative precision, and large ones are named most finely.
    """
    levels = [torch.tensor([0.0, 1.0], device="cpu")]
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2**exponent + 1, device="cpu")
        middles = 10.0 ** (exponent - 6) * ((edges[:-1] + edges[1:]) / 2)
        levels += [middles, -middles]
    return torch.cat(levels).sort().values


LEVELS = dynamic_levels()


def quantize_blocks(
    numbers: Float[Tensor, "count"],
) -> tuple[UInt8[Tensor, "count"], Float[Tensor, "groups"]]:
    """Which level each number is nearest to, and the largest absolute number of each group of 256.

    The last group may be shorter; it counts as filled up with zeros.
    """
    groups = F.pad(numbers, (0, -len(numbers) % GROUP)).view(-1, GROUP)
    largest = groups.abs().amax(dim=1)
    relative = (groups * _reciprocal(largest)[:, None]).clamp(-1, 1)
    levels = LEVELS.to(numbers.device)
    between = (levels[:-1] + levels[1:]) / 2
    return torch.bucketize(relative.flatten()[: len(numbers)], between).to(torch.uint8), largest


def dequantize_blocks(codes: UInt8[Tensor, "count"], largest: Float[Tensor, "groups"]) -> Float[Tensor, "count"]:
    """The numbers again: the level times the largest of its group."""
    levels = LEVELS.to(codes.device)
    return levels[codes.int()] * largest.repeat_interleave(GROUP)[: len(codes)]


def _reciprocal(largest: Float[Tensor, "groups"]) -> Float[Tensor, "groups"]:
    # A group of zeros has no scale; whatever it is multiplied by must only be finite.
    return 1 / largest.clamp(min=1e-38)
