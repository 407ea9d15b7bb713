"""Images with captions, and attention maps drawn over images."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from shared.plots.style import (
    GREEN,
    INK,
    VERMILION,
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
    """Draw images in rows of `columns`, each with its caption below it.

    An image is [height, width], [height, width, 3] or [3, height, width], floats in [0, 1] or bytes. Small images show
    their pixels as squares. `correct` marks each caption as right or wrong.

    Raises ValueError when an image has another shape, or the lists differ in length.
    """
    arrays = [as_rgb(image) for image in images]
    require(bool(arrays), "image_grid needs at least one image")
    for name, values in (("captions", captions), ("marks", correct)):
        require(values is None or len(values) == len(arrays), f"{len(arrays)} images and {len(values or [])} {name}")
    columns = min(columns, len(arrays))
    lines = max((caption.count("\n") + 1 for caption in captions or []), default=0)
    figure, axes = _rows_of_images(arrays, -(-len(arrays) // columns), columns, 0.22 * lines, title, note)
    for index, axis in enumerate(axes.flat):
        if index >= len(arrays):
            axis.set_visible(False)
            continue
        _show(axis, arrays[index])
        if captions is not None:
            is_correct = None if correct is None else bool(correct[index])
            mark, color = {None: ("", INK), True: ("✓ ", GREEN), False: ("✗ ", VERMILION)}[is_correct]
            axis.set_xlabel(mark + captions[index], fontsize=10, color=color, labelpad=4)
    return figure


@styled
def attention_overlay(
    images: Any, weights: Any, *, captions: Sequence[str] | None = None, title: str = "", note: str = ""
) -> Figure:
    """Draw one row per image: the image, then each of its attention maps over it, patch by patch.

    `images` is one image (as in `image_grid`) and `weights` [rows, columns] or [maps, rows, columns]; or a list of
    images and [images, maps, rows, columns]. `captions` name the maps. Yellow is a row's largest weight, so that the
    maps of one image can be compared.

    Raises ValueError when images, weights and captions don't match.
    """
    maps = np.asarray(plain(weights), dtype=float)
    require(2 <= maps.ndim <= 4 and maps.size > 0, f"weights must be [images, maps, rows, columns], not {maps.shape}")
    require(bool(np.isfinite(maps).all() and (maps >= 0).all()), "attention weights must be finite and not negative")
    arrays = [as_rgb(image) for image in ([images] if maps.ndim < 4 else images)]
    maps = maps.reshape((1,) * (4 - maps.ndim) + maps.shape)
    count = maps.shape[1]
    require(len(arrays) == len(maps), f"{len(arrays)} images and attention maps for {len(maps)}")
    require(captions is None or len(captions) == count, f"{count} maps and {len(captions or [])} captions")
    below = 0.22 * (captions is not None) / len(maps)
    figure, axes = _rows_of_images(arrays, len(maps), count + 1, below, title, note)
    for row, array, image_maps in zip(axes, arrays, maps, strict=True):
        _show(row[0], array)
        for axis, heat in zip(row[1:], image_maps, strict=True):
            _show(axis, _overlay(array, heat / max(image_maps.max(), 1e-12)), array.shape)
            _draw_patch_borders(axis, *heat.shape)
    for axis, caption in zip(axes[-1], ["the image", *captions] if captions else [], strict=False):
        axis.set_xlabel(caption, fontsize=10, color=INK, labelpad=4)
    return figure


def as_rgb(image: Any) -> np.ndarray:
    """Return an image as floats in [0, 1], [height, width, 3]. Raises ValueError for another shape."""
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


def _rows_of_images(
    arrays: Sequence[np.ndarray], rows: int, columns: int, below: float, title: str, note: str
) -> tuple[Figure, np.ndarray]:
    """Return a figure that fits rows of images, with `below` inches of caption under each."""
    cell = min(WIDTH / columns, 2.2)
    # A few images make a narrow figure, unless title or note need more width.
    width = min(WIDTH, max(columns * cell, 0.115 * len(title) + 0.4, 0.075 * len(note) + 0.4))
    aspect = max(array.shape[0] / array.shape[1] for array in arrays)
    height = rows * ((cell - 0.24) * aspect + 0.24 + below) + frame_height(title, note)
    return subplots(title, width=width, height=height, rows=rows, columns=columns, note=note)


def _overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return the image in gray with the colors of `heat` (0 … 1 per patch) added.

    The two are added, not multiplied, so that a hot patch keeps its hue on a black background.
    """
    scale = max(1, -(-240 // max(image.shape[:2])))  # enlarge small images: patches may be smaller than their pixels
    gray = np.kron(image @ np.array([0.299, 0.587, 0.114]), np.ones((scale, scale)))
    rows = np.arange(gray.shape[0]) * heat.shape[0] // gray.shape[0]
    columns = np.arange(gray.shape[1]) * heat.shape[1] // gray.shape[1]
    glow = matplotlib.colormaps["inferno"](0.1 + 0.75 * heat)[rows][:, columns, :3]
    return 0.72 * glow + 0.28 * gray[..., None]


def _draw_patch_borders(axis: Axes, rows: int, columns: int) -> None:
    """Draw thin dark lines between the patches of an image.

    They are lines of the figure, not pixels of the image: a smaller copy of an image loses some of its lines.
    """
    lines = [((0.0, row / rows), (1.0, row / rows)) for row in range(1, rows)]
    lines += [((column / columns, 0.0), (column / columns, 1.0)) for column in range(1, columns)]
    borders = LineCollection(lines, colors="black", alpha=0.35, linewidths=0.5, transform=axis.transAxes)
    axis.add_collection(borders, autolim=False)


def _show(axis: Axes, image: np.ndarray, original_shape: tuple[int, ...] | None = None) -> None:
    small = max(original_shape or image.shape) <= 128
    axis.imshow(image, interpolation="nearest" if small else "antialiased")
    bare(axis)
