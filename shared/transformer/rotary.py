"""Rotary position embeddings: rotate queries and keys by angles proportional to the token's position.

The dot product of two rotated vectors depends on the offset of their positions, not on the positions themselves.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from shared.transformer.rotary_scaling import DynamicScaling, RotaryScaling


class Rotary(nn.Module):
    """Angles of rotary position embeddings for any number of axes (arXiv:2104.09864, section 3.2.2).

    With one axis, pair i of a head is rotated by position · base^(−2i / head_dim). With several (rows and columns of
    an image), the pairs are divided evenly among the axes, and each axis has all frequencies from high to low.
    Positions may be fractions. The module has no weights and no buffers, because frequencies must not be rounded to
    half precision with the rest of a model. A `scaling` lowers frequencies for longer contexts (rotary_scaling.py).

    Raises ValueError when `head_dim` does not divide into pairs for every axis.
    """

    def __init__(self, head_dim: int, *, base: float = 10_000.0, axes: int = 1, scaling: RotaryScaling | None = None):
        super().__init__()
        if head_dim % (2 * axes):
            raise ValueError(
                f"head_dim {head_dim} does not divide into pairs for {axes} axes; expected a multiple of {2 * axes}"
            )
        self.head_dim = head_dim
        self.base = base
        self.axes = axes
        self.scaling = scaling

    @property
    def magnitude(self) -> float:
        """The factor by which rotated queries and keys are multiplied, in YaRN; else 1."""
        return 1.0 if self.scaling is None else self.scaling.magnitude

    def frequencies(self, device: torch.device | None = None, length: Tensor | None = None) -> Float[Tensor, "pairs"]:
        """Return the radians per position of the pairs of one axis, highest frequency first.

        length  number of positions, on which the frequencies of a `DynamicScaling` depend
        """
        width = self.head_dim // self.axes
        exponents = torch.arange(0, width, 2, dtype=torch.float32, device=device) / width
        frequencies = self.base**-exponents
        return frequencies if self.scaling is None else self.scaling(frequencies, self.base, length)

    def forward(
        self, positions: Int[Tensor, "batch tokens axes"] | Float[Tensor, "batch tokens axes"]
    ) -> Float[Tensor, "batch tokens half_head_dim"]:
        """Return the angle of every pair of a head. Raises ValueError when `positions` has another number of axes."""
        if positions.shape[-1] != self.axes:
            raise ValueError(
                f"positions have {positions.shape[-1]} axes, shape {list(positions.shape)}; "
                f"expected [batch, tokens, {self.axes}]"
            )
        length = positions.max() + 1 if isinstance(self.scaling, DynamicScaling) else None
        return (positions.float()[..., None] * self.frequencies(positions.device, length)).flatten(-2)

    def extra_repr(self) -> str:
        return f"{self.head_dim}, base={self.base:g}, axes={self.axes}"


def rotate(
    x: Float[Tensor, "batch heads tokens head_dim"],
    angles: Float[Tensor, "#batch tokens half_head_dim"],
    *,
    interleaved: bool = False,
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """Rotate pair i of every head by angle i.

    Pair i holds the elements i and i + head_dim/2 (Llama's layout), or with `interleaved` the elements 2i and 2i + 1
    (the paper's layout). The two are equal up to a permutation of the rows of the query and key weights.
    """
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    first, second = (x[..., 0::2], x[..., 1::2]) if interleaved else x.chunk(2, dim=-1)
    rotated = first * cos - second * sin, second * cos + first * sin
    joined = torch.stack(rotated, dim=-1).flatten(-2) if interleaved else torch.cat(rotated, dim=-1)
    return joined.to(x.dtype)
