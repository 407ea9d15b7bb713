"""Aspect-preserving resizing to a token budget (NaFlex: arXiv:2502.14786, section 2.4.2).

An image becomes as large as its budget of patches allows. Both sides are rounded up to whole patches, so each side is
stretched by less than one patch, and nothing is cropped or padded.
"""

from math import ceil

import torch
from jaxtyping import Int
from torch import Tensor

SMALLEST_SCALE, LARGEST_SCALE = 1e-6, 100.0
"""Limits of the search: an image is enlarged at most 100 times, so a tiny image may stay below its budget."""
PRECISION = 1e-5
"""Width of the interval of scales at which the search ends."""


def budget_grid(height: int, width: int, patch_size: int, max_patches: int) -> tuple[int, int]:
    """Return the rows and columns of patches of an image that is resized to at most `max_patches` patches.

    The scale is the largest one that fits: [SMALLEST_SCALE, LARGEST_SCALE] is bisected until it is narrower than
    PRECISION, and its lower end is used. The published image processor searches in the same way,
    and its steps and limits decide on images that lie between two grids.

    height, width  of the image in pixels

    Raises ValueError for an image without pixels, a budget below one patch, and a side too long for the budget.
    """
    if height < 1 or width < 1 or patch_size < 1:
        raise ValueError(f"an image of {height}×{width} pixels and patches of {patch_size}; expected at least 1 each")
    if max_patches < 1:
        raise ValueError(f"the token budget is {max_patches}; an image takes at least 1 patch")

    # exercise 6.3: the grid for a token budget
    def grid(scale: float) -> tuple[int, int]:
        return ceil(height * scale / patch_size), ceil(width * scale / patch_size)

    low, high = SMALLEST_SCALE, LARGEST_SCALE
    while high - low >= PRECISION:
        scale = (low + high) / 2
        rows, columns = grid(scale)
        if rows * columns <= max_patches:
            low = scale
        else:
            high = scale
    rows, columns = grid(low)
    # end exercise
    if rows * columns > max_patches:
        raise ValueError(
            f"an image of {height}×{width} pixels does not shrink to {max_patches} patches of {patch_size} pixels; "
            "crop it, or raise the budget"
        )
    return rows, columns


def budget_grids(sizes: Int[Tensor, "images 2"], patch_size: int, max_patches: int) -> Int[Tensor, "images 2"]:
    """Return rows and columns of patches of many images from their heights and widths. Raises as `budget_grid` does."""
    grids = [budget_grid(height, width, patch_size, max_patches) for height, width in sizes.tolist()]
    return torch.tensor(grids, dtype=torch.long).reshape(-1, 2)
