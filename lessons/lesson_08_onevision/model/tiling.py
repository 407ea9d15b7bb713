"""Higher-AnyRes: up to 6 × 6 tiles and a limit on their tokens (arXiv:2408.03326, section 3.2).

Lesson 5 cuts an image into at most five tiles and gives the language model every patch. Here an image may have 36
tiles, so that small text remains readable, and their joined grid is pooled to the tokens of at most nine tiles. An
image that shares its sequence with other images is one square tile; a video is a row of pooled frames.

Sizes are (height, width) or (rows, columns) throughout.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lessons.lesson_05_llava.model.anyres import remove_padding, tile_grid
from lessons.lesson_08_onevision.model.pooling import Size, limit_patches, pool_patches, pooled_size


def grid_pinpoints(tile_size: int, most: int = 6) -> tuple[Size, ...]:
    """Return the sizes in pixels of all grids from 1 × 1 to most × most tiles, row count by row count."""
    counts = range(1, most + 1)
    return tuple((rows * tile_size, columns * tile_size) for rows in counts for columns in counts)


PINPOINTS = grid_pinpoints(384)


@dataclass(frozen=True)
class VisualLayout:
    """Describe how images and videos become tokens; the defaults are those of the published models.

    tile_size   side of a tile, which is the image size of the vision encoder, in pixels
    side        patches along one side of a tile
    pinpoints   (height, width) sizes that a single image can be resized to, each a multiple of `tile_size`
    max_tiles   the joined tiles of an image are pooled to about as many patches as this number of tiles has

    Raises ValueError for a value below 1, and for a pinpoint that is not divisible into tiles.
    """

    tile_size: int = 384
    side: int = 27
    pinpoints: tuple[Size, ...] = PINPOINTS
    max_tiles: int = 9

    def __post_init__(self) -> None:
        for name in ("tile_size", "side", "max_tiles"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not self.pinpoints:
            raise ValueError("pinpoints is empty; expected at least one (height, width)")
        for height, width in self.pinpoints:
            if min(height, width) < 1 or height % self.tile_size or width % self.tile_size:
                raise ValueError(
                    f"the pinpoint {height} × {width} is not divisible into tiles of {self.tile_size} pixels"
                )

    @property
    def tile_patches(self) -> int:
        """Number of patches of one tile."""
        return self.side**2

    @property
    def max_patches(self) -> int:
        """Number of patches to which the joined tiles of an image are pooled."""
        return self.max_tiles * self.tile_patches

    @property
    def video_side(self) -> int:
        """Features along one side of a pooled frame: half of the patches, rounded up."""
        return (self.side + 1) // 2

    def tiles(self, image: Size) -> Size:
        """Return rows and columns of tiles of an image. Raises ValueError for an image without area."""
        return tile_grid(image, self.pinpoints, self.tile_size)

    def visible_patches(self, image: Size) -> Size:
        """Return the size of an image's joined grid of patches, without those that lie entirely on the padding."""
        rows, columns = self.tiles(image)
        # A tensor without elements: only its shape is of interest.
        visible = remove_padding(torch.empty(rows * self.side, columns * self.side, 0), image)
        return visible.shape[0], visible.shape[1]

    def image_tokens(self, image: Size, *, tiled: bool = True, max_patches: int | None = None) -> int:
        """Return the number of tokens of an image, newlines included.

        tiled        False for one of several images, which is one tile
        max_patches  another limit than that of the layout
        """
        if not tiled:
            return self.tile_patches + 1
        rows, columns = pooled_size(*self.visible_patches(image), max_patches or self.max_patches)
        return self.tile_patches + rows * (columns + 1)

    def video_tokens(self, frames: int, side: int | None = None) -> int:
        """Return the number of tokens of a video, with one newline at its end. Raises ValueError without frames."""
        if frames < 1:
            raise ValueError(f"a video of {frames} frames; expected at least one")
        return frames * (side or self.video_side) ** 2 + 1


def join_tiles(
    tiles: Float[Tensor, "tiles patches width"],
    image: Size,
    grid: Size,
    newline: Float[Tensor, "width"],
    max_patches: int,
) -> Float[Tensor, "image_tokens width"]:
    """Join the projected tiles of an image into one sequence.

    The image as one tile comes first. Then come the rows of the large image, pooled to about `max_patches` patches and
    each followed by `newline`. One of several images is one tile, with one newline at its end.

    tiles  the image as one tile, then the tiles of its grid in reading order, if there are any
    grid   rows and columns of tiles
    """
    side = round(tiles.shape[1] ** 0.5)
    # exercise 8.4: join the tiles, pool them, end each row
    if len(tiles) == 1:
        return torch.cat([tiles[0], newline[None]])
    large = tiles[1:].unflatten(0, grid).unflatten(2, (side, side)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
    pooled = limit_patches(remove_padding(large, image), max_patches)
    ends = newline.expand(len(pooled), 1, -1)
    return torch.cat([tiles[0], torch.cat([pooled, ends], dim=1).flatten(0, 1)])
    # end exercise


def join_frames(
    frames: Float[Tensor, "frames patches width"], newline: Float[Tensor, "width"], side: int
) -> Float[Tensor, "video_tokens width"]:
    """Pool every projected frame to side × side features and join them into one sequence, with one newline at its end.

    Raises ValueError for a video without frames.
    """
    if not len(frames):
        raise ValueError("a video of 0 frames; expected at least one")
    # exercise 8.5: a video as pooled frames
    return torch.cat([pool_patches(frames, side).flatten(0, 1), newline[None]])
    # end exercise


def pad_to_tile(
    image: Float[Tensor, "channels height width_px"], tile_size: int
) -> Float[Tensor, "1 channels {tile_size} {tile_size}"]:
    """Return a standardized image as one tile: centered on a square of the mean color, which is 0, and resized.

    This is how one of several images is encoded. Raises ValueError for an image without area.
    """
    height, width = image.shape[1:]
    if min(height, width) < 1:
        raise ValueError(f"an image of {height} × {width} pixels; expected at least one pixel")
    longest = max(height, width)
    top, left = (longest - height) // 2, (longest - width) // 2
    square = F.pad(image, (left, longest - width - left, top, longest - height - top), value=0.0)
    return F.interpolate(square[None], (tile_size, tile_size), mode="bicubic", antialias=True)
