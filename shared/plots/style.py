"""The style of every figure (palette, font, sizes), and how a figure becomes a file.

Figures have a white background, so that they are readable on a light page and on a dark one, at about 800 pixels.
The colors are those of Okabe and Ito, which people with color vision deficiency can distinguish; no information is
given by color alone. The same data gives the same bytes, so a committed figure changes only when its content does.
"""

import io
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from shared.errors import CourseError

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#B5588D"
ORANGE, SKY, GRAY, INK = "#E69F00", "#56B4E9", "#767676", "#24292F"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
PALE = "#A9BBC8"  # bars beside the highlighted one

# Sequential: larger values are darker. Diverging: white is zero, blue is negative, vermilion is positive.
SEQUENTIAL = LinearSegmentedColormap.from_list("sequential", ["#FFFFFF", "#BFDDEE", "#5BA3CF", BLUE, "#06304E"])
DIVERGING = LinearSegmentedColormap.from_list("diverging", ["#00466E", BLUE, "#FFFFFF", VERMILION, "#7A3300"])

WIDTH = 8.0  # inches
DOTS_PER_INCH = 160
DASHED: dict[str, Any] = {"color": GRAY, "linestyle": (0, (4, 3)), "linewidth": 1.4}
STYLE = {
    "font.family": "DejaVu Sans",  # part of matplotlib, so it is the same on every machine
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#AFB8C1",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#E6E9ED",
    "grid.linewidth": 0.8,
    "xtick.color": "#57606A",
    "ytick.color": "#57606A",
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "lines.linewidth": 2.2,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.12,
}


class Figure(MatplotlibFigure):
    """A figure that a notebook shows exactly as `save` writes it."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return as_png(self), {"width": round(self.get_figwidth() * 100)}


class Labels(TypedDict, total=False):
    """The texts of a figure, which every chart takes as keyword arguments.

    title    what the figure shows, above it
    x_label  quantity on the horizontal axis
    y_label  quantity on the vertical axis
    note     how it was measured, in small print below it
    """

    title: str
    x_label: str
    y_label: str
    note: str


Drawing = TypeVar("Drawing", bound=Callable)


def styled(function: Drawing) -> Drawing:
    """Run `function` in the style of this module, whatever style its caller has set."""

    @wraps(function)
    def within_style(*arguments, **options):
        with style.context(["default", STYLE]):
            return function(*arguments, **options)

    return cast(Drawing, within_style)


@styled
def subplots(
    title: str = "", *, width: float = WIDTH, height: float = 4.2, rows: int = 1, columns: int = 1, note: str = ""
) -> tuple[Figure, np.ndarray]:
    """Return an empty figure and its axes, [rows, columns], for charts that no function here draws.

    `title` states what the figure shows and `note` (small, below) how it was measured. Sizes are in inches and include
    both.
    """
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    if title:
        figure.suptitle(title, x=0.015, ha="left", fontsize=13, fontweight="bold")
    if note:
        figure.supxlabel(note, x=0.015, ha="left", fontsize=9, color=GRAY)
    return figure, axes


def save(figure: MatplotlibFigure, path: Path) -> None:
    """Write a figure as PNG. Raises ValueError for another file type, CourseError when the file cannot be written."""
    path = Path(path)
    require(path.suffix == ".png", f"figures are saved as .png, not as {path.name}")
    content = as_png(figure)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise CourseError(f"cannot write the figure {path}: {error.strerror or error}") from error


@styled
def as_png(figure: MatplotlibFigure) -> bytes:
    """Return the bytes of a figure's PNG file."""
    if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        # Fix the layout: it shifts slightly with every drawing, and the bytes with it.
        figure.draw_without_rendering()
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    content = io.BytesIO()
    # Without the name and version of the software, the bytes depend on the image only.
    figure.savefig(content, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None}, pil_kwargs={"optimize": True})
    return content.getvalue()


def bare(axis: Axes) -> None:
    """Remove ticks, grid and frame of an axis."""
    axis.grid(visible=False)
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)


def frame_height(title: str, note: str) -> float:
    """Return the height in inches of a figure's title and note."""
    return 0.5 * bool(title) + 0.35 * bool(note)


def number_text(value: float, percent: bool) -> str:
    """Return a value as text with three significant digits, or as a percentage."""
    return f"{100 * value:.1f} %" if percent else f"{value:.3g}"


def plain(values: Any) -> Any:
    """Return a tensor, possibly on a GPU or with a gradient, as a NumPy array; return other values unchanged."""
    return values.detach().cpu().numpy() if hasattr(values, "detach") else values


def require(condition: bool, message: str) -> None:
    """Raise ValueError with this message unless the condition holds."""
    if not condition:
        raise ValueError(message)
