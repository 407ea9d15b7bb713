"""Every figure's look in one place, and the few kinds of picture that lessons draw."""

from shared.plots.charts import bars_with_intervals, learning_curves
from shared.plots.images import attention_overlay, image_grid
from shared.plots.matrices import matrix, matrix_grid
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
    VERMILLION,
    Card,
    figure,
    save,
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
    "VERMILLION",
    "Card",
    "attention_overlay",
    "bars_with_intervals",
    "figure",
    "image_grid",
    "learning_curves",
    "matrix",
    "matrix_grid",
    "save",
]
