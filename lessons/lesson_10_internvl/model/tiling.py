"""Dynamic tiles: an image becomes 1 to 12 square tiles, and a thumbnail of all of it (arXiv:2404.16821).

Lesson 5's AnyRes pads an image into one of a few sizes; here it is stretched, without padding, to the grid of tiles
with the closest aspect ratio. The rule is that of the published image processor.
"""

import math
from functools import cache

import torch
from jaxtyping import Int
from torch import Tensor

Size = tuple[int, int]


@cache
def tile_grids(min_tiles: int, max_tiles: int) -> tuple[Size, ...]:
    """Return all (rows, columns) with a number of tiles within the limits: fewer tiles first, then fewer columns."""
    counts = range(1, max_tiles + 1)
    grids = [(rows, columns) for columns in counts for rows in counts if min_tiles <= rows * columns <= max_tiles]
    return tuple(sorted(grids, key=math.prod))


def select_grid(size: Size, tile_size: int, min_tiles: int = 1, max_tiles: int = 12) -> Size:
    """Return the (rows, columns) of tiles for an image of (height, width) pixels.

    The grid has the aspect ratio, width / height, whose absolute difference from the image's is smallest. Differences
    are compared as they are, without a tolerance. Grids are tried in the order of `tile_grids`. A later grid with an
    equal difference, such as 2 × 2 after 1 × 1, replaces the earlier one if the image has more than half of that grid's
    tile_size² · rows · columns pixels, so that a small image is not enlarged much.

    With tiles of 448 pixels, an image of 448 × 448 has the grid (1, 1): it has a quarter of the pixels of 2 × 2 tiles.
    One of 900 × 900 has (2, 2): it has more than half of the pixels of 2 × 2 tiles, but less than half of those of
    3 × 3. Raises ValueError for an image without area.
    """
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"an image of {height} × {width} pixels; expected at least one pixel")
    # exercise 10.4: the grid of tiles
    best, smallest_difference = (1, 1), math.inf
    for rows, columns in tile_grids(min_tiles, max_tiles):
        difference = abs(width / height - columns / rows)
        large_enough = 2 * height * width > tile_size**2 * rows * columns
        if difference < smallest_difference or (difference == smallest_difference and large_enough):
            best, smallest_difference = (rows, columns), difference
    return best
    # end exercise


def select_grids(
    sizes: Int[Tensor, "images 2"], tile_size: int, min_tiles: int = 1, max_tiles: int = 12
) -> Int[Tensor, "images 2"]:
    """Return rows and columns of tiles for several (height, width). Raises as `select_grid` does."""
    grids = [select_grid((height, width), tile_size, min_tiles, max_tiles) for height, width in sizes.tolist()]
    return torch.tensor(grids, dtype=torch.long).reshape(-1, 2)


def tile_count(grid: Size) -> int:
    """Return the number of tiles with the thumbnail, which a single tile does not need."""
    rows, columns = grid
    return rows * columns + (rows * columns > 1)
