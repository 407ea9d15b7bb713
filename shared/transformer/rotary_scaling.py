"""Rotary frequencies for contexts longer than those a model was trained on: four published rules.

A model trained on L tokens has never computed an angle f · n with n ≥ L. A rule lowers some frequencies f, so that the
angles of factor · L tokens lie in the trained range again. High frequencies, which tell neighboring tokens apart, make
many full rotations within L; low ones less than one. The rules differ in which of them they lower.

Each rule is called with the frequencies [pairs] in radians per token, the base of the rotary positions, and the length
of the sequence. Its `magnitude` multiplies rotated queries and keys; it is 1 but for YaRN.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

Frequencies = Float[Tensor, "pairs"]


@dataclass(frozen=True)
class LinearScaling:
    """Divide every frequency by `factor`: position interpolation (arXiv:2306.15595, equation 4)."""

    factor: float
    magnitude: ClassVar[float] = 1.0

    def __call__(self, frequencies: Frequencies, base: float, length: Tensor | None = None) -> Frequencies:
        return frequencies / self.factor


@dataclass(frozen=True)
class DynamicScaling:
    """Raise the base as the sequence grows beyond `original_context` tokens (NTK-aware, arXiv:2309.00071, section 3.3).

    With s = factor · length / original_context − (factor − 1), pair i of `pairs` is divided by s^(i / (pairs − 1)): the
    highest frequency stays and the lowest is divided by s. Shorter sequences keep all frequencies. Keys in a cache keep
    the frequencies of the length at which they were computed, as in the published models.
    """

    factor: float
    original_context: int
    magnitude: ClassVar[float] = 1.0

    def __call__(self, frequencies: Frequencies, base: float, length: Tensor | None = None) -> Frequencies:
        if length is None:
            return frequencies
        grown = length.to(frequencies.dtype).clamp(min=self.original_context) / self.original_context
        exponents = torch.arange(len(frequencies), device=frequencies.device) / max(len(frequencies) - 1, 1)
        return frequencies * (self.factor * grown - (self.factor - 1)) ** -exponents


@dataclass(frozen=True)
class Llama3Scaling:
    """Slow down the low frequencies, so that a model trained on `original_context` tokens handles `factor` times more.

    Pairs that rotate more than `high_frequency_factor` times within the original context keep their frequency. Pairs
    that rotate less than `low_frequency_factor` times are divided by `factor`. Between the two, the frequency is
    interpolated linearly (Llama 3.1, arXiv:2407.21783, section 3.4.2; constants of its published configuration).
    """

    factor: float = 8.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context: int = 8192
    magnitude: ClassVar[float] = 1.0

    def __call__(self, frequencies: Frequencies, base: float, length: Tensor | None = None) -> Frequencies:
        rotations = self.original_context * frequencies / (2 * math.pi)
        keep = (rotations - self.low_frequency_factor) / (self.high_frequency_factor - self.low_frequency_factor)
        keep = keep.clamp(0, 1)
        return keep * frequencies + (1 - keep) * frequencies / self.factor


@dataclass(frozen=True)
class YarnScaling:
    """Interpolate low frequencies, keep high ones, and sharpen the softmax (YaRN, arXiv:2309.00071, section 3.4).

    fast_rotations, slow_rotations  pairs that rotate more often than the first within the original context keep their
                                    frequency, pairs that rotate less often than the second are divided by `factor`
                                    (β and α; `beta_fast` and `beta_slow` in published configs)
    attention_factor                the magnitude, when it is given
    mscale, mscale_all_dim          without an attention factor, the magnitude is a ratio of two `yarn_magnitude`s with
                                    these weights, where both are given and not 0 (DeepSeek-V3, Kimi K2: both 1)
    truncate                        whether the limits between pairs are rounded outward to whole pairs
    """

    factor: float
    original_context: int
    fast_rotations: float = 32.0
    slow_rotations: float = 1.0
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    @property
    def magnitude(self) -> float:
        """The factor of rotated queries and keys; attention scores are multiplied by its square."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return yarn_magnitude(self.factor, self.mscale) / yarn_magnitude(self.factor, self.mscale_all_dim)
        return yarn_magnitude(self.factor)

    def __call__(self, frequencies: Frequencies, base: float, length: Tensor | None = None) -> Frequencies:
        rotations = (self.fast_rotations, self.slow_rotations)
        return yarn_frequencies(
            frequencies, base, self.factor, self.original_context, rotations=rotations, truncate=self.truncate
        )


RotaryScaling = LinearScaling | DynamicScaling | Llama3Scaling | YarnScaling


def yarn_magnitude(factor: float, weight: float = 1.0) -> float:
    """Return 0.1 · weight · ln(factor) + 1, or 1 for a factor of at most 1 (arXiv:2309.00071, equation 22)."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def yarn_frequencies(
    frequencies: Frequencies,
    base: float,
    factor: float,
    original_context: int,
    *,
    rotations: tuple[float, float] = (32.0, 1.0),
    truncate: bool = True,
) -> Frequencies:
    """Return the frequencies of YaRN ("NTK-by-parts", arXiv:2309.00071, section 3.2), as published models compute them.

    frequencies  radians per token of each pair, base^(−i / pairs) for pair i
    rotations    (fast, slow): pair i rotates original_context · base^(−i / pairs) / 2π times within the original
                 context; solved for i, this gives one limit for each of the two
    truncate     round the first limit down and the second up

    Pairs before the first limit keep their frequency and pairs after the second are divided by `factor`; between them,
    the fraction that is divided grows linearly. Limits lie between 0 and 2 · pairs − 1, as in the published code.
    """
    pairs = len(frequencies)
    # exercise 7.10: YaRN frequencies
    first, last = (pairs * math.log(original_context / (2 * math.pi * number)) / math.log(base) for number in rotations)
    if truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    if first == last:
        last += 0.001  # a step instead of a division by zero
    pair = torch.arange(pairs, dtype=frequencies.dtype, device=frequencies.device)
    divided = ((pair - first) / (last - first)).clamp(0, 1)
    return divided * frequencies / factor + (1 - divided) * frequencies
    # end exercise
