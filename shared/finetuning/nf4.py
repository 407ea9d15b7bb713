"""Four-bit weights: sixteen levels where a normal distribution has its mass, and scales that are quantized themselves.

QLoRA's NormalFloat (arXiv:2305.14314, section 3), bit for bit as `bitsandbytes` stores it.
"""

from statistics import NormalDist

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from shared.finetuning.blockwise_8bit import dequantize_blocks, quantize_blocks
from shared.finetuning.quantized_linear import QuantizedLinear

BLOCK = 64
# The published sixteen. `normal_float_levels` derives them, but for the last bits: every file and every kernel that
# speaks NF4 has these.
LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


def normal_float_levels() -> list[float]:
    """Sixteen levels that normally distributed weights use about equally often (section 3, eq. 4).

    Equal shares of a normal distribution are equal steps in probability. Eight steps above the middle and seven below
    leave room for an exact zero. The outermost level can't sit at probability 1, which is infinitely far away: it sits
    half way between where the outermost of 15 and of 16 equal cells would have their middles. At the end all is
    divided by the largest, for a block's largest weight is to be 1.
    """
    outermost = 1 - (1 / 30 + 1 / 32) / 2
    quantile = NormalDist().inv_cdf
    above = [quantile(outermost - step * (outermost - 0.5) / 8) for step in range(8)]
    below = [-quantile(outermost - step * (outermost - 0.5) / 7) for step in range(7)]
    return sorted(level / above[0] for level in [*above, 0.0, *below])


def quantize_nf4(
    weight: Float[Tensor, "*shape"],
) -> tuple[UInt8[Tensor, "bytes"], Float[Tensor, "blocks"]]:
    """Two weights in each byte, and the largest absolute weight of every 64 in a row, in float32.

    A weight becomes the number of the level nearest to weight / largest; the first of two stands in the upper half
    of their byte. The last block may be shorter; it counts as filled up with zeros.
    """
    flat = weight.detach().flatten().float()
    blocks = F.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    largest = blocks.abs().amax(dim=1)
    # A block of zeros has no scale; whatever it is multiplied by must only be finite.
    relative = (blocks * (1 / largest.clamp(min=1e-38))[:, None]).clamp(-1, 1)
    levels = torch.tensor(LEVELS, device=weight.device)
    codes = torch.bucketize(relative.flatten(), (levels[:-1] + levels[1:]) / 2).to(torch.uint8)
    codes = codes[: len(flat) + len(flat) % 2].view(-1, 2)
    return codes[:, 0] << 4 | codes[:, 1], largest


def dequantize_nf4(
    packed: UInt8[Tensor, "bytes"], largest: Float[Tensor, "blocks"], shape: tuple[int, ...]
) -> Float[Tensor, "*shape"]:
    """The weights again, each the level of its code times the largest of its block."""
    levels = torch.tensor(LEVELS, device=packed.device)
    codes = torch.stack((packed >> 4, packed & 15), dim=1).flatten()
    count = torch.Size(shape).numel()
    scales = largest.repeat_interleave(BLOCK)[:count]
    return (levels[codes[:count].int()] * scales).view(shape)


class NF4Linear(QuantizedLinear):
    """A linear layer with a weight of four bits, and of its scales eight (double quantization, section 3).

    A float32 for every 64 weights is half a bit a weight. Stored in eight bits each, with a float32 for every 256 of
    them, it is 8/64 + 32/(64 · 256) = 0.127 bits. Scales are all positive, and the eight bits have a sign to spend:
    so their mean is taken off first.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__(linear)
        packed, largest = quantize_nf4(linear.weight)
        mean = largest.mean()
        codes, groups = quantize_blocks(largest - mean)
        self.register_buffer("packed", packed)
        self.register_buffer("scale_codes", codes)
        self.register_buffer("scale_groups", groups)
        self.register_buffer("scale_mean", mean)

    def dequantize(self) -> Float[Tensor, "out in"]:
        scales = dequantize_blocks(self.scale_codes, self.scale_groups) + self.scale_mean
        return dequantize_nf4(self.packed, scales, (self.out_features, self.in_features))
