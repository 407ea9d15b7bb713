"""Four-bit weights: QLoRA's NormalFloat, quantiles of the normal distribution, with quantized scales.

Codes and scales are those that `bitsandbytes` stores, bit for bit (arXiv:2305.14314, section 3).
"""

from statistics import NormalDist

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from shared.finetuning.blockwise_8bit import dequantize_blocks, quantize_blocks
from shared.finetuning.quantized_linear import QuantizedLinear

BLOCK = 64
# The published levels. `normal_float_levels` derives them except for the last bits; every file and every kernel in NF4
# uses these.
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
    """Return sixteen levels that normally distributed weights use about equally often (section 3, eq. 4).

    The levels are quantiles of the normal distribution at equal steps in probability. Eight steps above the middle and
    seven below it allow an exact zero. The outermost level can't be at probability 1, which is infinitely far away: it
    is halfway between the middles of the outermost of 15 and of 16 equal cells. All levels are divided by the largest,
    since the largest weight of a block is scaled to 1.
    """
    outermost = 1 - (1 / 30 + 1 / 32) / 2
    quantile = NormalDist().inv_cdf
    above = [quantile(outermost - step * (outermost - 0.5) / 8) for step in range(8)]
    below = [-quantile(outermost - step * (outermost - 0.5) / 7) for step in range(7)]
    return sorted(level / above[0] for level in [*above, 0.0, *below])


def quantize_nf4(
    weight: Float[Tensor, "*shape"],
) -> tuple[UInt8[Tensor, "bytes"], Float[Tensor, "blocks"]]:
    """Return codes, two per byte, and the largest absolute weight of each block of 64 weights, in float32.

    A weight's code is the index of the level nearest to weight / largest. The first of two codes is in the upper half
    of their byte. The last block may be shorter; it is padded with zeros.
    """
    # exercise 5.12: quantize blocks to NF4
    flat = weight.detach().flatten().float()
    blocks = F.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    largest = blocks.abs().amax(dim=1)
    # A block of zeros has no scale; its factor only has to be finite.
    relative = (blocks * (1 / largest.clamp(min=1e-38))[:, None]).clamp(-1, 1)
    levels = torch.tensor(LEVELS, device=weight.device)
    codes = torch.bucketize(relative.flatten(), (levels[:-1] + levels[1:]) / 2).to(torch.uint8)
    codes = codes[: len(flat) + len(flat) % 2].view(-1, 2)
    return codes[:, 0] << 4 | codes[:, 1], largest
    # end exercise


def dequantize_nf4(
    packed: UInt8[Tensor, "bytes"], largest: Float[Tensor, "blocks"], shape: tuple[int, ...]
) -> Float[Tensor, "*shape"]:
    """Return the weights: each code's level times the largest weight of its block."""
    levels = torch.tensor(LEVELS, device=packed.device)
    codes = torch.stack((packed >> 4, packed & 15), dim=1).flatten()
    count = torch.Size(shape).numel()
    scales = largest.repeat_interleave(BLOCK)[:count]
    return (levels[codes[:count].int()] * scales).view(shape)


class NF4Linear(QuantizedLinear):
    """A linear layer with a four-bit weight and eight-bit scales (double quantization, section 3).

    A float32 scale per 64 weights costs 0.5 bits per weight. Stored in eight bits, with a float32 per 256 scales, the
    cost is 8/64 + 32/(64 · 256) = 0.127 bits. Scales are positive and the eight-bit levels have a sign, so the scales'
    mean is subtracted first.
    """

    packed: Tensor
    scale_codes: Tensor
    scale_groups: Tensor
    scale_mean: Tensor

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
