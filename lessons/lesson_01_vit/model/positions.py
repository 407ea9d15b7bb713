"""Positions of patches: learned vectors and their interpolation to another grid, sine-cosine vectors, coordinates.

Attention does not depend on the order of its inputs. Without positions, an image and its shuffled patches give the
same output.
"""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def interpolate_positions(
    positions: Float[Tensor, "patches width"],
    old_grid: tuple[int, int],
    new_grid: tuple[int, int],
    *,
    antialias: bool = False,
) -> Float[Tensor, "new_patches width"]:
    """Resize the learned positions of one grid to another, as if they were an image (arXiv:2010.11929, section 3.2).

    The interpolation is bicubic and keeps pixel centers in place; `antialias` filters first when the grid gets smaller.
    A grid is (rows, columns). Positions are in row-major order, without those of class tokens.
    Raises ValueError when the number of positions is not the number of patches of the old grid.
    """
    if positions.shape[0] != old_grid[0] * old_grid[1]:
        raise ValueError(f"{positions.shape[0]} positions do not fill a grid of {old_grid[0]}×{old_grid[1]} patches")
    if old_grid == new_grid:
        return positions
    if antialias and new_grid[1] == 1 and new_grid[0] > 1:
        # PyTorch (observed in 2.13) filters an image of one column wrongly on the CPU; one of one row is correct.
        transposed = rearrange(positions, "(rows columns) width -> (columns rows) width", rows=old_grid[0])
        return interpolate_positions(transposed, old_grid[::-1], new_grid[::-1], antialias=True)
    # exercise 1.4: resize learned positions
    image = rearrange(positions, "(rows columns) width -> 1 width rows columns", rows=old_grid[0])
    # In float32: weighted sums of neighbors in half precision would shift every position.
    image = F.interpolate(image.float(), size=new_grid, mode="bicubic", align_corners=False, antialias=antialias)
    return rearrange(image.to(positions.dtype), "1 width rows columns -> (rows columns) width")
    # end exercise


def patch_coordinates(grid: tuple[int, int], device: torch.device | str | None = None) -> Int[Tensor, "patches 2"]:
    """Return row and column of each patch, counted from 0, in row-major order, as 2-D rotary positions need them."""
    rows, columns = (torch.arange(length, device=device) for length in grid)
    return torch.cartesian_prod(rows, columns)


def sine_cosine_positions(grid: tuple[int, int], width: int) -> Float[Tensor, "patches width"]:
    """Return fixed positions: sines and cosines of geometric frequencies (arXiv:1706.03762, section 3.5) on two axes.

    The first half of the values encodes the column, the second the row, as in MAE (arXiv:2111.06377, appendix A.1).
    Raises ValueError when `width` is not a multiple of 4: two axes, a sine and a cosine each.
    """
    if width % 4:
        raise ValueError(f"sine-cosine positions on two axes need a width that is a multiple of 4, got {width}")
    frequencies = 10_000.0 ** -torch.linspace(0, 1, width // 4 + 1, dtype=torch.float64)[:-1]
    row, column = patch_coordinates(grid).double().unbind(-1)
    angles = torch.stack([torch.outer(column, frequencies), torch.outer(row, frequencies)])
    waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
    return rearrange(waves, "axes patches values -> patches (axes values)").float()
