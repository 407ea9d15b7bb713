"""Figures with one style: curves, bars, heatmaps, image grids and attention overlays; README.md shows examples."""

from shared.plots.charts import bars_with_intervals, learning_curves
from shared.plots.heatmaps import heatmap, heatmap_grid, panel
from shared.plots.images import attention_overlay, image_grid
from shared.plots.style import (
    BLUE,
    DIVERGING,
    GRAY,
    GREEN,
    INK,
    ORANGE,
    PALETTE,
    PURPLE,
    SEQUENTIAL,
    SKY,
    VERMILION,
    Figure,
    Labels,
    save,
    subplots,
)

__all__ = [
    "BLUE",
    "DIVERGING",
    "GRAY",
    "GREEN",
    "INK",
    "ORANGE",
    "PALETTE",
    "PURPLE",
    "SEQUENTIAL",
    "SKY",
    "VERMILION",
    "Figure",
    "Labels",
    "attention_overlay",
    "bars_with_intervals",
    "heatmap",
    "heatmap_grid",
    "image_grid",
    "learning_curves",
    "panel",
    "save",
    "subplots",
]
