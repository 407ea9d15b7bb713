"""Bilinear pooling: a grid of features with fewer rows and columns (arXiv:2408.03326, section 3.2).

Above a token budget, LLaVA-OneVision keeps the resolution of the encoded pixels and reduces the tokens: features are
resampled by bilinear interpolation. Every frame of a video is pooled as well, from 27 × 27 to 14 × 14 features.

Sizes are (rows, columns) throughout.
"""

import math

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]
TOLERANCE = 1.1
"""A grid is pooled only when its sides are more than this factor too long, as in the published models."""


def pool_grid(
    grid: Float[Tensor, "*batch rows columns width"], size: Size
) -> Float[Tensor, "*batch new_rows new_columns width"]:
    """Resample grids of features to `size` by bilinear interpolation.

    Sample i of n lies at (i + 0.5) · rows / n − 0.5 on the old grid, clamped to it, and is the weighted mean of the two
    nearest rows; columns are resampled in the same way. Raises ValueError when a new side is below 1.
    """
    if min(size) < 1:
        raise ValueError(f"a grid of {size[0]} × {size[1]} features; expected at least 1 × 1")
    # exercise 8.2: bilinear pooling in PyTorch
    rows, columns, width = grid.shape[-3:]
    channels_first = grid.reshape(-1, rows, columns, width).permute(0, 3, 1, 2)
    pooled = F.interpolate(channels_first, size, mode="bilinear")
    return pooled.permute(0, 2, 3, 1).reshape(*grid.shape[:-3], *size, width)
    # end exercise


def pooled_size(rows: int, columns: int, max_patches: int) -> Size:
    """Return the size to which a grid of patches is pooled: its own if it has at most about `max_patches` patches.

    Both sides are divided by the same ratio √(rows · columns / max_patches) and rounded down. Up to a ratio of
    `TOLERANCE` the grid is unchanged, so that it may have up to 1.21 times as many patches as the limit.

    Raises ValueError when nothing would be left of a side.
    """
    ratio = math.sqrt(rows * columns / max_patches)
    if ratio <= TOLERANCE:
        return rows, columns
    size = int(rows // ratio), int(columns // ratio)
    if min(size) < 1:
        raise ValueError(
            f"a grid of {rows} × {columns} patches cannot be pooled to {max_patches} patches in its aspect ratio; "
            "allow more tokens"
        )
    return size


def limit_patches(
    grid: Float[Tensor, "rows columns width"], max_patches: int
) -> Float[Tensor, "new_rows new_columns width"]:
    """Pool a grid that has too many patches for the limit. Raises ValueError as `pooled_size` does."""
    # exercise 8.3: pool only what is too large
    size = pooled_size(grid.shape[0], grid.shape[1], max_patches)
    return grid if size == tuple(grid.shape[:2]) else pool_grid(grid, size)
    # end exercise


def pool_patches(
    patches: Float[Tensor, "tiles patches width"], side: int | None
) -> Float[Tensor, "tiles pooled_patches width"]:
    """Pool the square grid of every tile or frame to side × side features; None leaves them unchanged."""
    own = math.isqrt(patches.shape[1])
    if side is None or side == own:
        return patches
    return pool_grid(patches.unflatten(1, (own, own)), (side, side)).flatten(1, 2)
