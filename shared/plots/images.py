"""Pictures, with what a model says of them and where it looks."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from shared.plots.style import (
    GREEN,
    INK,
    VERMILLION,
    WIDTH,
    Figure,
    bare,
    frame_height,
    plain,
    require,
    styled,
    subplots,
)


@styled
def image_grid(
    images: Sequence[Any],
    captions: Sequence[str] | None = None,
    *,
    columns: int = 6,
    correct: Sequence[bool] | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Draw pictures in rows of `columns`, each with its caption under it.

    A picture is [height, width], [height, width, 3] or [3, height, width]: floats in [0, 1] or bytes; small ones show
    their pixels as squares. `correct` marks each caption as right or wrong.
    Raises ValueError when a picture has another shape, or the lists differ in length.
    """
    pictures = [as_picture(image) for image in images]
    require(bool(pictures), "image_grid needs at least one picture")
    for what, given in (("captions", captions), ("marks", correct)):
        require(given is None or len(given) == len(pictures), f"{len(pictures)} pictures and {len(given or [])} {what}")
    columns = min(columns, len(pictures))
    lines = max((caption.count("\n") + 1 for caption in captions or []), default=0)
    figure, axes = _rows_of_pictures(pictures, -(-len(pictures) // columns), columns, 0.22 * lines, title, note)
    for place, axis in enumerate(axes.flat):
        if place >= len(pictures):
            axis.set_visible(False)
            continue
        _show(axis, pictures[place])
        if captions is not None:
            right = None if correct is None else bool(correct[place])
            mark, colour = {None: ("", INK), True: ("✓ ", GREEN), False: ("✗ ", VERMILLION)}[right]
            axis.set_xlabel(mark + captions[place], fontsize=10, color=colour, labelpad=4)
    return figure


@styled
def attention_overlay(
    images: Any, weights: Any, *, captions: Sequence[str] | None = None, title: str = "", note: str = ""
) -> Figure:
    """Draw a row for each image: the image, then each of its attention maps laid over it, patch by patch.

    `images` is one picture (as in `image_grid`) and `weights` [rows, columns] or [maps, rows, columns]; or a list of
    pictures and [images, maps, rows, columns]. `captions` name the maps. Yellow is a row's largest weight, so that
    the maps of one image can be compared. Raises ValueError when images, weights and captions don't match.
    """
    maps = np.asarray(plain(weights), dtype=float)
    require(2 <= maps.ndim <= 4 and maps.size > 0, f"weights must be [images, maps, rows, columns], not {maps.shape}")
    require(bool(np.isfinite(maps).all() and (maps >= 0).all()), "attention weights must be finite and not negative")
    pictures = [as_picture(image) for image in ([images] if maps.ndim < 4 else images)]
    maps = maps.reshape((1,) * (4 - maps.ndim) + maps.shape)
    count = maps.shape[1]
    require(len(pictures) == len(maps), f"{len(pictures)} images and attention maps for {len(maps)}")
    require(captions is None or len(captions) == count, f"{count} maps and {len(captions or [])} captions")
    below = 0.22 * (captions is not None) / len(maps)
    figure, axes = _rows_of_pictures(pictures, len(maps), count + 1, below, title, note)
    for row, picture, own in zip(axes, pictures, maps, strict=True):
        _show(row[0], picture)
        for axis, heat in zip(row[1:], own, strict=True):
            _show(axis, _heated(picture, heat / max(own.max(), 1e-12)), picture.shape)
    for axis, caption in zip(axes[-1], ["the image", *captions] if captions else [], strict=False):
        axis.set_xlabel(caption, fontsize=10, color=INK, labelpad=4)
    return figure


def as_picture(image: Any) -> np.ndarray:
    """Return an image as floats in [0, 1], [height, width, 3]. Raises ValueError when it is no image."""
    pixels = np.asarray(plain(image))
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3):
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    shapes = "[height, width], [height, width, 3] or [3, height, width]"
    fits = pixels.ndim == 3 and pixels.shape[2] in (1, 3) and pixels.size > 0
    require(fits, f"an image must be {shapes}, not {list(np.shape(plain(image)))}")
    pixels = pixels / 255 if pixels.dtype == np.uint8 else pixels.astype(float)
    return np.clip(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), 0, 1)


def _rows_of_pictures(
    pictures: Sequence[np.ndarray], rows: int, columns: int, below: float, title: str, note: str
) -> tuple[Figure, np.ndarray]:
    """A figure just large enough for rows of pictures, with `below` inches of caption under each."""
    cell = min(WIDTH / columns, 2.2)
    # A few pictures make a narrow figure, unless the words above and below them need more.
    width = min(WIDTH, max(columns * cell, 0.115 * len(title) + 0.4, 0.075 * len(note) + 0.4))
    shape = max(picture.shape[0] / picture.shape[1] for picture in pictures)
    height = rows * ((cell - 0.24) * shape + 0.24 + below) + frame_height(title, note)
    return subplots(title, width=width, height=height, rows=rows, columns=columns, note=note)


def _heated(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return the picture in gray under a glow of `heat` (0 … 1, patch by patch), a hair of dark between patches.

    The two are added, not multiplied: a hot patch keeps its hue on a black background too.
    """
    fine = max(1, -(-240 // max(picture.shape[:2])))  # each pixel as so many squared, so that a hair is thin
    gray = np.kron(picture @ np.array([0.299, 0.587, 0.114]), np.ones((fine, fine)))
    rows = np.arange(gray.shape[0]) * heat.shape[0] // gray.shape[0]
    columns = np.arange(gray.shape[1]) * heat.shape[1] // gray.shape[1]
    glow = matplotlib.colormaps["inferno"](0.1 + 0.75 * heat)[rows][:, columns, :3]
    seen = 0.72 * glow + 0.28 * gray[..., None]
    hair = (np.diff(rows, prepend=0) > 0)[:, None] | (np.diff(columns, prepend=0) > 0)[None, :]
    return np.where(hair[..., None], 0.6 * seen, seen)


def _show(axis: Axes, picture: np.ndarray, of: tuple[int, ...] | None = None) -> None:
    small = max(of or picture.shape) <= 128
    axis.imshow(picture, interpolation="nearest" if small else "antialiased")
    bare(axis)
