"""Positions of patches in images of any grid: a learned grid that is resized, and factorized tables per axis.

The third scheme, 2-D rotary angles, is lesson 1's (`shared.transformer.Rotary`): it needs no table at all.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_06_any_resolution.model.config import NaViTConfig
from lessons.lesson_06_any_resolution.model.packing import PatchBatch

# ── A learned square grid, resized (SigLIP 2: arXiv:2502.14786, section 2.4.2) ────────────────────────────────────────


def resize_matrix(old: int, new: int) -> Float[Tensor, "new old"]:
    """Return the weights of antialiased linear interpolation from `old` points to `new` points; each row sums to 1.

    Old point j lies at j + 1/2 and new point i at (i + 1/2) · old / new. The weight falls linearly from the new point
    to zero at distance max(old / new, 1): a smaller grid averages over all old points. The result is float64.
    """
    # exercise 6.8: antialiased linear interpolation
    scale = old / new
    centers = (torch.arange(new, dtype=torch.float64) + 0.5) * scale
    points = torch.arange(old, dtype=torch.float64) + 0.5
    weights = (1 - (points - centers[:, None]).abs() / max(scale, 1.0)).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)
    # end exercise


def resize_grid(
    positions: Float[Tensor, "size_squared width"], grid: tuple[int, int]
) -> Float[Tensor, "patches width"]:
    """Resize a square grid of learned vectors to a grid of (rows, columns), antialiased bilinear, in row-major order.

    Rows and columns are interpolated separately. `F.interpolate(…, mode="bilinear", antialias=True)` computes the same,
    except that PyTorch (observed in 2.13) filters grids of one column wrongly on the CPU.
    """
    size = round(positions.shape[0] ** 0.5)
    # In float32: weighted sums in half precision would shift every position.
    image = positions.to(torch.promote_types(positions.dtype, torch.float32)).unflatten(0, (size, size))
    by_row, by_column = (resize_matrix(size, side).to(image.dtype).to(image.device) for side in grid)
    resized = torch.einsum("ri,cj,ijw->rcw", by_row, by_column, image)
    return resized.flatten(0, 1).to(positions.dtype)


class LearnedGrid(nn.Module):
    """One learned vector per cell of a square grid, resized to the grid of each image."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size**2, width) * 0.02)

    def forward(self, batch: PatchBatch) -> Float[Tensor, "rows tokens width"]:
        """Return the vector of every token. Each grid that occurs in the batch is computed once."""
        grids, grid_of_image = batch.grids.unique(dim=0, return_inverse=True)
        table = torch.cat([resize_grid(self.weight, (rows, columns)) for rows, columns in grids.tolist()])
        sizes = grids.prod(dim=1)
        starts = sizes.cumsum(0) - sizes
        # Padding reads the table of the first image; no other token attends to it.
        grid_of_token = grid_of_image[batch.image_index.clamp(min=0)]
        row, column = batch.coordinates.unbind(-1)
        return F.embedding(starts[grid_of_token] + row * grids[grid_of_token, 1] + column, table)


# ── One table per axis (NaViT: arXiv:2307.06304, section 2.1) ─────────────────────────────────────────────────────────


def axis_positions(
    table: Float[Tensor, "entries width"], index: Int[Tensor, "*tokens"], side: Int[Tensor, "*tokens"], fractional: bool
) -> Float[Tensor, "*tokens width"]:
    """Return the learned vectors of rows or of columns.

    index       row (or column) of each patch, counted from 0
    side        rows (or columns) of the patch's image
    fractional  absolute positions read entry `index`. Fractional positions read the table at the place
                index / side · entries, and between two entries the vector is interpolated linearly. With as many
                patches as entries, both are the same.
                Places beyond the last entry read the last entry. The result has the table's dtype.

    Raises ValueError for an absolute index beyond the table.
    """
    # exercise 6.9: factorized positions
    entries = table.shape[0]
    if fractional:
        place = index * entries / side
        lower = place.floor().long()
        upper = (lower + 1).clamp(max=entries - 1)
        weight = (place - lower)[..., None].to(table.dtype)
        return F.embedding(lower, table) * (1 - weight) + F.embedding(upper, table) * weight
    if index.max() >= entries:
        raise ValueError(
            f"a patch is at index {int(index.max())}, but the table ends at {entries - 1}; resize the image, use a "
            "larger grid_size, or fractional positions"
        )
    return F.embedding(index, table)
    # end exercise


class FactorizedPositions(nn.Module):
    """Learned vectors of rows plus learned vectors of columns: 2 · size vectors instead of size²."""

    def __init__(self, size: int, width: int, *, fractional: bool):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(size, width) * 0.02)
        self.columns = nn.Parameter(torch.randn(size, width) * 0.02)
        self.fractional = fractional

    def forward(self, batch: PatchBatch) -> Float[Tensor, "rows tokens width"]:
        """Return the vector of every token. Raises ValueError for an absolute index beyond the table."""
        row, column = batch.coordinates.unbind(-1)
        height, width = batch.grids[batch.image_index.clamp(min=0)].unbind(-1)
        by_row = axis_positions(self.rows, row, height, self.fractional)
        return by_row + axis_positions(self.columns, column, width, self.fractional)


def added_positions(config: NaViTConfig) -> LearnedGrid | FactorizedPositions | None:
    """Build the module whose vectors are added to the embedded patches; None for rotary positions and for none."""
    if config.positions == "learned":
        return LearnedGrid(config.grid_size, config.width)
    if config.positions.startswith("factorized"):
        fractional = config.positions == "factorized-fractional"
        return FactorizedPositions(config.grid_size, config.width, fractional=fractional)
    return None
