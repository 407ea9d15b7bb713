"""Images of any resolution for an eye of one resolution: a grid of tiles, and the whole image small beside them.

(LLaVA-NeXT; AnyRes is described in arXiv:2408.03326, section 3.2, and began in arXiv:2310.03744, section 3.4.)

An image is enlarged or shrunk to fit one of a few sizes that tiles can cover, its shape kept, with black bars where it does
not fill them. The eye looks at each tile and at the whole image, squeezed to one tile; then the patches of the tiles are laid
together again, what lies on the bars is cut away, and each row ends with a learned vector, so that a list of patches still
tells how wide the image is.

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
"""The sizes of LLaVA-NeXT: grids of 1 × 2, 2 × 1, 2 × 2, 3 × 1 and 1 × 3 tiles of 336 pixels."""


def best_size(image: Size, pinpoints: Sequence[Size]) -> Size:
    """The size in which most of the image's own detail survives; of equals the one with the least black.

    Enlarging shows nothing new: beyond the image's own number of pixels nothing counts.
    Raises ValueError for an image or a list without any area.
    """
    if min(image) < 1 or not pinpoints:
        raise ValueError(f"an image of {image} and the sizes {list(pinpoints)}; expected pixels, and a size to choose")

    # exercise 5.6: the grid that loses least
    def merit(size: Size) -> tuple[int, int]:
        scale = min(size[0] / image[0], size[1] / image[1])
        kept = min(int(image[0] * scale) * int(image[1] * scale), image[0] * image[1])
        return kept, kept - size[0] * size[1]

    return max(pinpoints, key=merit)
    # end exercise


def fitted(image: Size, size: Size) -> Size:
    """How large the image is inside `size` when it keeps its shape: one of the two sides is filled."""
    scales = size[0] / image[0], size[1] / image[1]
    if scales[1] < scales[0]:
        return min(ceil(image[0] * scales[1]), size[0]), size[1]
    return size[0], min(ceil(image[1] * scales[0]), size[1])


def tiles_of(
    image: Float[Tensor, "channels height width_px"], pinpoints: Sequence[Size], side: int
) -> Float[Tensor, "tiles channels {side} {side}"]:
    """The whole image as one tile, then the tiles of its best size in reading order.

    (The public models enlarge with Pillow's bicubic filter; here PyTorch's, smoothed when it shrinks, comes near it.)
    Raises ValueError when a size is no multiple of the tile.
    """
    original = (image.shape[1], image.shape[2])
    size = best_size(original, pinpoints)
    grid = grid_of(original, pinpoints, side)
    inner = fitted(original, size)
    above, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    padded = F.pad(
        _resized(image, inner), (left, size[1] - inner[1] - left, above, size[0] - inner[0] - above), value=0.0
    )
    tiles = padded.unflatten(2, (grid[1], side)).unflatten(1, (grid[0], side)).permute(1, 3, 0, 2, 4).flatten(0, 1)
    return torch.cat([_resized(image, (side, side))[None], tiles])


def _resized(image: Float[Tensor, "channels height width_px"], size: Size) -> Float[Tensor, "channels new new_width"]:
    return F.interpolate(image[None], size, mode="bicubic", antialias=True)[0]


def grid_of(image: Size, pinpoints: Sequence[Size], side: int) -> Size:
    """Rows and columns of tiles that an image is cut into. Raises ValueError when its size is no multiple of the tile."""
    size = best_size(image, pinpoints)
    if size[0] % side or size[1] % side:
        raise ValueError(f"a size of {size[0]} × {size[1]} is not covered by tiles of {side}; change the pinpoints")
    return size[0] // side, size[1] // side


def without_bars(
    patches: Float[Tensor, "rows columns width"], image: Size
) -> Float[Tensor, "kept_rows kept_columns width"]:
    """The patches that show the image, without those that lie wholly on the black bars."""
    # exercise 5.7: cut the black bars away
    rows, columns = patches.shape[:2]
    # The published code rounds to seven digits first, so that 6.99999999 patches are 7.
    if image[1] / image[0] > columns / rows:
        filled = int(round(image[0] * (columns / image[1]), 7))
        bar = (rows - filled) // 2
        return patches[bar : rows - bar]
    filled = int(round(image[1] * (rows / image[0]), 7))
    bar = (columns - filled) // 2
    return patches[:, bar : columns - bar]
    # end exercise


def packed(
    tiles: Float[Tensor, "tiles patches width"], image: Size, grid: Size, newline: Float[Tensor, "width"]
) -> Float[Tensor, "image_tokens width"]:
    """The small whole image, then the rows of the large one, each with a newline behind it.

    tiles  as `tiles_of` gives them, the patches of each projected already
    grid   rows and columns of tiles
    """
    side = round(tiles.shape[1] ** 0.5)
    # exercise 5.8: tiles laid together
    large = tiles[1:].unflatten(0, grid).unflatten(2, (side, side)).transpose(1, 2)
    shown = without_bars(large.flatten(2, 3).flatten(0, 1), image)
    ends = newline.expand(len(shown), 1, -1)
    return torch.cat([tiles[0], torch.cat([shown, ends], dim=1).flatten(0, 1)])
    # end exercise


def token_count(image: Size, pinpoints: Sequence[Size], side: int, patches: int) -> int:
    """How many tokens an image takes: what its `<image>` has to be expanded to.

    side     of a tile in pixels
    patches  of a tile along one side
    """
    grid = grid_of(image, pinpoints, side)
    shown = without_bars(torch.empty(grid[0] * patches, grid[1] * patches, 0), image)
    return patches**2 + shown.shape[0] * (shown.shape[1] + 1)
