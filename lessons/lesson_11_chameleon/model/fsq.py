"""Finite scalar quantization: codes without a learned codebook (arXiv:2309.15505).

Each of a few channels is bounded by tanh and rounded to one of L levels. A vector of d channels has L_1 · … · L_d
codes: the digits of a number, each with its own base. There is no codebook to learn, no commitment loss, and a code
cannot die. The straight-through estimator is the only approximation that is left.
"""

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from lessons.lesson_11_chameleon.model.quantizer import Codes, Maps, Quantized, check_codes, straight_through

LEVELS = {
    16: (4, 4),
    64: (4, 4, 4),
    256: (8, 6, 5),
    512: (8, 8, 8),
    1024: (8, 5, 5, 5),
    4096: (7, 5, 5, 5, 5),
}
"""Levels for a codebook of about this size; those for 256, 1,024 and 4,096 are the paper's (table 1)."""

EPS = 1e-3


def bound(
    vectors: Float[Tensor, "vectors channels"], levels: Float[Tensor, "channels"]
) -> Float[Tensor, "vectors channels"]:
    """Squash each channel so that rounding gives exactly L whole numbers: −⌊L/2⌋ to ⌈L/2⌉ − 1 (appendix A.1).

    With h = (1 + EPS) · (L − 1) / 2, it is h · tanh(z + s) − o. For an even L the levels are not symmetric, so the
    offset o is 1/2; s = artanh(o / h) gives 0 at z = 0. For an odd L both are 0. `levels` holds L for each channel.
    """
    # exercise 11.17: bound the channels
    half = (levels - 1) * (1 + EPS) / 2
    offset = torch.where(levels % 2 == 0, 0.5, 0.0)
    shift = torch.atanh(offset / half)
    return half * torch.tanh(vectors + shift) - offset
    # end exercise


def round_to_levels(
    vectors: Float[Tensor, "vectors channels"], levels: Float[Tensor, "channels"]
) -> Float[Tensor, "vectors channels"]:
    """Return each channel at one of its L levels, scaled to −1 … 1, with the gradient of `bound` (section 3)."""
    bounded = bound(vectors, levels)
    return straight_through(bounded, bounded.round()) / (levels // 2)


def place_values(levels: Float[Tensor, "channels"]) -> Int[Tensor, "channels"]:
    """Return what a digit of each channel counts in a code: L_1 · … · L_(i−1)."""
    return torch.cat([levels.new_ones(1), levels[:-1]]).cumprod(dim=0).long()


def codes_of_levels(
    quantized: Float[Tensor, "vectors channels"], levels: Float[Tensor, "channels"]
) -> Int[Tensor, "vectors"]:
    """Return the code of each vector of levels: Σ digit_i · L_1 · … · L_(i−1), with digits from 0 to L − 1.

    quantized  what `round_to_levels` returns: rounded numbers from −⌊L/2⌋ to ⌈L/2⌉ − 1, each divided by ⌊L/2⌋

    The lowest level is digit 0. `place_values` gives the products. Floating-point errors must not change a code.
    """
    # exercise 11.18: levels to codes
    half = levels // 2
    digits = (quantized * half + half).round().long()
    return (digits * place_values(levels)).sum(dim=1)
    # end exercise


def levels_of_codes(
    codes: Int[Tensor, "vectors"], levels: Float[Tensor, "channels"]
) -> Float[Tensor, "vectors channels"]:
    """Return the quantized vector of each code; the inverse of `codes_of_levels`."""
    digits = codes[:, None] // place_values(levels) % levels.long()
    half = levels // 2
    return (digits - half) / half


class FiniteScalarQuantizer(nn.Module):
    """Quantize maps by rounding: [batch, channels, rows, columns] → the same shape, and codes; the loss is 0.

    levels  of each channel. Raises ValueError when there is none, or one is below 2.
    """

    levels: Tensor

    def __init__(self, levels: Sequence[int]):
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError(f"levels are {list(levels)}; expected at least one channel, each with 2 levels or more")
        self.codebook_size, self.width = math.prod(levels), len(levels)
        self.register_buffer("levels", torch.tensor(levels, dtype=torch.float32), persistent=False)

    def forward(self, maps: Maps) -> Quantized:
        batch, _, rows, _ = maps.shape
        vectors = rearrange(maps, "b w r c -> (b r c) w")
        quantized = round_to_levels(vectors, self.levels)
        codes = codes_of_levels(quantized.detach(), self.levels)
        return Quantized(
            rearrange(quantized, "(b r c) w -> b w r c", b=batch, r=rows),
            rearrange(codes, "(b r c) -> b r c", b=batch, r=rows),
            maps.new_zeros(()),
        )

    def encode(self, maps: Maps) -> Codes:
        """Return the codes of maps."""
        return self(maps).codes

    def decode(self, codes: Codes) -> Maps:
        """Return the quantized vectors of codes. Raises ValueError for codes out of range."""
        check_codes(codes, self.codebook_size)
        vectors = levels_of_codes(codes.flatten(), self.levels)
        return rearrange(vectors, "(b r c) w -> b w r c", b=len(codes), r=codes.shape[1])
