"""Matrices drawn as heatmaps."""

from collections.abc import Sequence
from typing import Any, Literal, Unpack

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import PercentFormatter

from shared.plots.style import (
    DIVERGING,
    INK,
    SEQUENTIAL,
    Figure,
    Labels,
    bare,
    frame_height,
    plain,
    require,
    styled,
    subplots,
)


@styled
def heatmap(
    values: Any,
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    percent: bool = False,
    **labels: Unpack[Labels],
) -> Figure:
    """Draw a matrix [rows, columns] as a heatmap, with the numbers written in it when they are few enough to read.

    Values of both signs are drawn in two hues, with zero white.

    Raises ValueError when `values` is not a matrix, or the number of labels does not fit.
    """
    table = np.asarray(plain(values), dtype=float)
    require(table.ndim == 2 and table.size > 0, f"heatmap needs [rows, columns], not {table.shape}")
    rows, columns = table.shape
    for side, names, length in (("row", row_labels, rows), ("column", column_labels, columns)):
        require(names is None or len(names) == length, f"{length} {side}s and {len(names or [])} {side} labels")
    title, note = labels.get("title", ""), labels.get("note", "")
    height = float(np.clip(5.6 * rows / columns, 0.9, 5.6)) + 0.7 + frame_height(title, note)
    figure, axes = subplots(title, height=height, note=note)
    axis = axes[0, 0]
    shades = _draw(axis, table)
    axis.set_xlabel(labels.get("x_label", ""))
    axis.set_ylabel(labels.get("y_label", ""))
    if column_labels is not None:
        slanted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        long = columns * max(map(len, column_labels)) > 60
        axis.set_xticks(range(columns), list(column_labels), color=INK, **(slanted if long else {}))
    if row_labels is not None:
        axis.set_yticks(range(rows), list(row_labels), color=INK)
    if max(rows, columns) <= 12:
        _write_numbers(axis, table, shades, percent)
    else:
        _add_scale(figure, axis, shades, percent)
    return figure


@styled
def heatmap_grid(values: Any, *, title: str = "", percent: bool = False, note: str = "") -> Figure:
    """Draw [rows, columns, height, width] as a grid of small maps on one scale, each at its place.

    This shows, for every patch of an image, its similarity to all patches. Raises ValueError for another shape.
    """
    maps = np.asarray(plain(values), dtype=float)
    require(maps.ndim == 4 and maps.size > 0, f"heatmap_grid needs [rows, columns, height, width], not {maps.shape}")
    rows, columns, high, wide = maps.shape
    # One image with numbers four pixels wide and maps two pixels apart: hundreds of axes would take seconds.
    blocks = np.pad(np.kron(maps, np.ones((4, 4))), ((0, 0), (0, 0), (0, 2), (0, 2)), constant_values=np.nan)
    mosaic = blocks.transpose(0, 2, 1, 3).reshape(rows * (4 * high + 2), columns * (4 * wide + 2))[:-2, :-2]
    height = float(np.clip(6.0 * rows * high / (columns * wide), 1.0, 6.0)) + 0.3 + frame_height(title, note)
    figure, axes = subplots(title, height=height, note=note)
    shades = _draw(axes[0, 0], mosaic)
    _add_scale(figure, axes[0, 0], shades, percent)
    return figure


def panel(axis: Axes, label: str, values: Any) -> None:
    """Draw one stage of a model on an axis: an image [height, width, 3], a text, or a matrix as shades around zero."""
    bare(axis)
    axis.set_xlabel(label)
    if isinstance(values, str):
        axis.text(0.5, 0.5, values, ha="center", va="center", fontsize=12, transform=axis.transAxes)
        return
    table = np.asarray(plain(values))
    if table.ndim == 3:
        axis.imshow(table, interpolation="nearest")
        return
    limit = np.abs(table).max()
    aspect: Literal["equal", "auto"] = "equal" if table.shape[0] == table.shape[1] else "auto"
    axis.imshow(table, cmap=DIVERGING, vmin=-limit, vmax=limit, aspect=aspect, interpolation="nearest")


def _draw(axis: Axes, table: np.ndarray) -> AxesImage:
    signed = np.nanmin(table) < 0
    largest = float(np.nanmax(np.abs(table))) or 1.0
    low, palette = (-largest, DIVERGING) if signed else (0.0, SEQUENTIAL)
    bare(axis)
    return axis.imshow(table, cmap=palette, vmin=low, vmax=largest, interpolation="nearest", aspect="equal")


def _write_numbers(axis: Axes, table: np.ndarray, shades: AxesImage, percent: bool) -> None:
    for (row, column), value in np.ndenumerate(table):
        dark = sum(shades.cmap(shades.norm(value))[:3]) < 1.6
        text = f"{100 * value:.0f} %" if percent else f"{value:.2g}"
        axis.text(column, row, text, ha="center", va="center", color="white" if dark else INK, fontsize=10)


def _add_scale(figure: Figure, axis: Axes, shades: AxesImage, percent: bool) -> None:
    formatter = PercentFormatter(1.0, decimals=0) if percent else None
    scale = figure.colorbar(shades, ax=axis, shrink=0.6, pad=0.02, aspect=28, format=formatter)
    scale.outline.set_visible(False)
