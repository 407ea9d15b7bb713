"""AnyRes: images of any resolution for an encoder of one resolution, as tiles and the whole image at low resolution.

(LLaVA-NeXT; AnyRes is described in arXiv:2408.03326, section 3.2, and began in arXiv:2310.03744, section 3.4.)

An image is resized to fit into one of a few sizes that are multiples of the tile. Its aspect ratio does not change, and
the rest is padded with black. The encoder encodes each tile, and the whole image resized to one tile. The patches of
the tiles are then joined into one grid, and patches of the padding are removed. Each row ends with a learned embedding,
so that the language model can infer the width of the image.

Sizes are (height, width) throughout.
"""

from collections.abc import Sequence
from math import ceil

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]
PINPOINTS: tuple[Size, ...] = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
"""The sizes of LLaVA-NeXT in pixels: grids of 1 × 2, 2 × 1, 2 × 2, 3 × 1 and 1 × 3 tiles of 336 pixels."""


def select_resolution(image: Size, pinpoints: Sequence[Size]) -> Size:
    """Return the pinpoint that keeps the most pixels of the image; among equals, the one with the least padding.

    Enlarging adds no information, so at most the image's own number of pixels counts.
    Raises ValueError for an image without area or an empty list.
    """
    if min(image) < 1 or not pinpoints:
        raise ValueError(
            f"an image of {image} and the sizes {list(pinpoints)}; expected at least one pixel and one size"
        )

    # exercise 5.6: the grid that loses least
    def score(size: Size) -> tuple[int, int]:
        scale = min(size[0] / image[0], size[1] / image[1])
        pixels = min(int(image[0] * scale) * int(image[1] * scale), image[0] * image[1])
        return pixels, pixels - size[0] * size[1]

    return max(pinpoints, key=score)
    # end exercise


def fit_inside(image: Size, size: Size) -> Size:
    """Return the largest size with the image's aspect ratio that fits inside `size`."""
    scales = size[0] / image[0], size[1] / image[1]
    if scales[1] < scales[0]:
        return min(ceil(image[0] * scales[1]), size[0]), size[1]
    return size[0], min(ceil(image[1] * scales[0]), size[1])


def cut_into_tiles(
    image: Float[Tensor, "channels height width_px"], pinpoints: Sequence[Size], side: int
) -> Float[Tensor, "tiles channels {side} {side}"]:
    """Return the whole image as one tile, then the tiles of its selected size in reading order.

    The published models resize with Pillow's bicubic filter; PyTorch's antialiased bicubic filter is a close
    approximation. Raises ValueError when a size is not a multiple of the tile.
    """
    original = (image.shape[1], image.shape[2])
    size = select_resolution(original, pinpoints)
    grid = tile_grid(original, pinpoints, side)
    inner = fit_inside(original, size)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    padded = F.pad(_resized(image, inner), (left, size[1] - inner[1] - left, top, size[0] - inner[0] - top), value=0.0)
    tiles = padded.unflatten(2, (grid[1], side)).unflatten(1, (grid[0], side)).permute(1, 3, 0, 2, 4).flatten(0, 1)
    return torch.cat([_resized(image, (side, side))[None], tiles])


def _resized(image: Float[Tensor, "channels height width_px"], size: Size) -> Float[Tensor, "channels new new_width"]:
    return F.interpolate(image[None], size, mode="bicubic", antialias=True)[0]


def tile_grid(image: Size, pinpoints: Sequence[Size], side: int) -> Size:
    """Return rows and columns of an image's tiles. Raises ValueError when its size is not a multiple of the tile."""
    size = select_resolution(image, pinpoints)
    if size[0] % side or size[1] % side:
        raise ValueError(f"a size of {size[0]} × {size[1]} is not divisible into tiles of {side}; change the pinpoints")
    return size[0] // side, size[1] // side


def remove_padding(
    patches: Float[Tensor, "rows columns width"], image: Size
) -> Float[Tensor, "visible_rows visible_columns width"]:
    """Return the patches of the image, without those that lie entirely on the padding."""
    # exercise 5.7: remove the padding
    rows, columns = patches.shape[:2]
    # The published code rounds to seven digits, so that 6.99999999 patches count as 7.
    if image[1] / image[0] > columns / rows:
        filled = int(round(image[0] * (columns / image[1]), 7))
        padding = (rows - filled) // 2
        return patches[padding : rows - padding]
    filled = int(round(image[1] * (rows / image[0]), 7))
    padding = (columns - filled) // 2
    return patches[:, padding : columns - padding]
    # end exercise


def join_tiles(
    tiles: Float[Tensor, "tiles patches width"], image: Size, grid: Size, newline: Float[Tensor, "width"]
) -> Float[Tensor, "image_tokens width"]:
    """Join tiles into one sequence: the whole image, then the rows of the large image, each followed by `newline`.

    tiles  as `cut_into_tiles` returns them, with projected patches
    grid   rows and columns of tiles
    """
    side = round(tiles.shape[1] ** 0.5)
    # exercise 5.8: join the tiles
    large = tiles[1:].unflatten(0, grid).unflatten(2, (side, side)).transpose(1, 2)
    visible = remove_padding(large.flatten(2, 3).flatten(0, 1), image)
    ends = newline.expand(len(visible), 1, -1)
    return torch.cat([tiles[0], torch.cat([visible, ends], dim=1).flatten(0, 1)])
    # end exercise


def token_count(image: Size, pinpoints: Sequence[Size], side: int, patches: int) -> int:
    """Return the number of tokens of an image: its `<image>` is expanded to as many.

    side     side of a tile in pixels
    patches  patches along one side of a tile
    """
    grid = tile_grid(image, pinpoints, side)
    visible = remove_padding(torch.empty(grid[0] * patches, grid[1] * patches, 0), image)
    return patches**2 + visible.shape[0] * (visible.shape[1] + 1)
