"""Three ways to bring a page of any size to a token budget, and where points of the page lie afterward.

native  one image with the page's aspect ratio and at most `budget` patches (NaFlex: arXiv:2502.14786, section 2.4.2)
square  one square image with at most `budget` patches, whatever the page's aspect ratio
anyres  the whole page at low resolution and some tiles, all of one size, with at most `budget` patches together
        (AnyRes, lesson 5: arXiv:2408.03326, section 3.2)

All three resize with the same filter, the antialiased bicubic one of lesson 5's tiles.
"""

from collections.abc import Sequence
from math import isqrt
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lessons.lesson_05_llava.model.anyres import Size, cut_into_tiles, fit_inside, select_resolution
from lessons.lesson_06_any_resolution.model import ImagePatches, budget_grid

PATCH_SIZE = 8
"""Side of a patch in pixels."""
LEAST_TILES = 4
"""AnyRes: a budget covers the whole page at low resolution and at least this many tiles."""
Resizing = Literal["native", "square", "anyres"]
VIEWS = {"native": 1, "square": 1, "anyres": 2}
"""Images that show a point of the page: with AnyRes, a tile and the whole page at low resolution."""


class PageInput(NamedTuple):
    """One page as images for the encoder, and where the page's points lie on them.

    images         one image, or with AnyRes the whole page and then the tiles
    image_numbers  which of the images shows each point; the most detailed view first
    places         row and column of each point on that image, in patches
    """

    images: Sequence[ImagePatches]
    image_numbers: Int[Tensor, "points views"]
    places: Float[Tensor, "points views 2"]


def resize_page(
    image: Float[Tensor, "channels height width_px"], points: Float[Tensor, "points 2"], resizing: str, budget: int
) -> PageInput:
    """Return a page as images of at most `budget` patches together.

    points    x and y as fractions of the page's width and height
    resizing  one of `VIEWS`

    Raises ValueError for an unknown resizing.
    """
    if resizing == "anyres":
        return _tiled(image, points, budget)
    if resizing not in VIEWS:
        raise ValueError(f"no resizing {resizing!r}: choose one of {', '.join(VIEWS)}")
    side = isqrt(budget)
    native = budget_grid(image.shape[1], image.shape[2], PATCH_SIZE, budget)
    grid = native if resizing == "native" else (side, side)
    places = points.flip(-1) * torch.tensor(grid)
    return PageInput([_patches(image, grid)], torch.zeros(len(points), 1, dtype=torch.long), places[:, None])


def _patches(image: Float[Tensor, "channels height width_px"], grid: Size) -> ImagePatches:
    size = grid[0] * PATCH_SIZE, grid[1] * PATCH_SIZE
    resized = F.interpolate(image[None], size, mode="bicubic", antialias=True)[0]
    return ImagePatches.from_image(resized, PATCH_SIZE)


def tile_side(budget: int) -> int:
    """Return the patches along one side of a tile: the largest number that allows `LEAST_TILES` tiles."""
    return isqrt(budget // (1 + LEAST_TILES))


def pinpoints(budget: int) -> list[Size]:
    """Return the (height, width) in pixels of every grid of tiles that the budget allows."""
    side = tile_side(budget)
    most = budget // side**2 - 1
    grids = [(rows, columns) for rows in range(1, most + 1) for columns in range(1, most // rows + 1)]
    return [(rows * side * PATCH_SIZE, columns * side * PATCH_SIZE) for rows, columns in grids]


def _tiled(
    image: Float[Tensor, "channels height width_px"], points: Float[Tensor, "points 2"], budget: int
) -> PageInput:
    side, sizes = tile_side(budget), pinpoints(budget)
    original = (image.shape[1], image.shape[2])
    images = [ImagePatches.from_image(tile, PATCH_SIZE) for tile in cut_into_tiles(image, sizes, side * PATCH_SIZE)]
    size = select_resolution(original, sizes)
    inner = torch.tensor(fit_inside(original, size))
    # The page stands in the middle of its padding.
    corner = (torch.tensor(size) - inner) // 2
    on_tiles = (points.flip(-1) * inner + corner) / PATCH_SIZE
    tile = (on_tiles / side).floor().long()
    number = 1 + tile[:, 0] * (size[1] // (side * PATCH_SIZE)) + tile[:, 1]
    numbers = torch.stack([number, torch.zeros_like(number)], dim=1)
    return PageInput(images, numbers, torch.stack([on_tiles - tile * side, points.flip(-1) * side], dim=1))
