"""Pixel unshuffle and the projector: 2 × 2 patches become one visual token (arXiv:2404.16821).

A tile of 448 × 448 pixels has 32 × 32 patches. Pixel unshuffle moves each square of 2 × 2 neighbors into the width:
1,024 features of width W become 256 of width 4 W, and no value is lost. The projector is LayerNorm and a two-layer MLP.
"""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lessons.lesson_09_qwen_vl.model.config import VISION_ACTIVATIONS


def pixel_unshuffle(
    grid: Float[Tensor, "tiles rows columns width"], factor: int
) -> Float[Tensor, "tiles new_rows new_columns new_width"]:
    """Move each square of factor × factor neighbors into the width: [tiles, R, C, W] → [tiles, R/f, C/f, f² W].

    The vectors of a square follow each other row by row. Raises ValueError when a side is no multiple of `factor`.
    """
    rows, columns = grid.shape[1:3]
    if rows % factor or columns % factor:
        raise ValueError(f"a grid of {rows} × {columns} patches does not divide into squares of {factor} × {factor}")
    # exercise 10.1: pixel unshuffle
    return rearrange(grid, "n (r p) (c q) w -> n r c (p q w)", p=factor, q=factor)
    # end exercise


class UnshuffleProjector(nn.Module):
    """Pixel unshuffle, LayerNorm and a two-layer MLP: [tiles, R, C, W] → [tiles, R/f · C/f, language_width]."""

    def __init__(self, vision_width: int, language_width: int, *, factor: int = 2, activation: str = "gelu"):
        super().__init__()
        self.factor = factor
        self.norm = nn.LayerNorm(vision_width * factor**2)
        self.first = nn.Linear(vision_width * factor**2, language_width)
        self.second = nn.Linear(language_width, language_width)
        self.activation = VISION_ACTIVATIONS[activation]

    def forward(
        self, grid: Float[Tensor, "tiles rows columns vision_width"]
    ) -> Float[Tensor, "tiles visual_tokens language_width"]:
        """Return the visual tokens of every tile, row by row. Raises as `pixel_unshuffle` does."""
        features = self.norm(pixel_unshuffle(grid, self.factor).flatten(1, 2))
        return self.second(self.activation(self.first(features)))
