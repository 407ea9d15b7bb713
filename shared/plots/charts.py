"""Curves and bars: how well something learns, and against what."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from shared.plots.style import (
    BLUE,
    DASHED,
    GRAY,
    INK,
    PALE,
    PALETTE,
    Figure,
    frame_height,
    number_text,
    require,
    styled,
    subplots,
)

Curve = tuple[Sequence[float], Sequence[float]]  # steps, and what was measured at them


@styled
def learning_curves(
    curves: Mapping[str, Sequence[Curve]],
    *,
    title: str = "",
    x_label: str = "training step",
    y_label: str = "loss",
    baselines: Mapping[str, float] | None = None,
    percent: bool = False,
    logarithmic: bool = False,
    note: str = "",
) -> Figure:
    """Draw a curve for each name, labeled at its end, and dashed lines for what it has to beat.

    `curves[name]` holds a curve (steps, values) for each seed: several become their mean, over a band from the least
    to the greatest. Raises ValueError when a curve's steps and values don't pair up, there are none, or too many.
    """
    require(bool(curves) and all(curves.values()), "learning_curves needs at least one curve under every name")
    require(len(curves) <= len(PALETTE), f"{len(curves)} curves can't be told apart; draw at most {len(PALETTE)}")
    figure, axes = subplots(title, note=note)
    axis = axes[0, 0]
    ends = []
    for (name, seeds), colour in zip(curves.items(), PALETTE, strict=False):
        steps, values = _aligned(name, seeds)
        axis.plot(steps, values.mean(0), color=colour)
        if len(values) > 1:
            axis.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0)
        ends.append((name, values[:, -1].mean(), colour))
    for name, value in (baselines or {}).items():
        axis.axhline(value, **DASHED)
        ends.append((name, value, GRAY))
    axis.set(xlabel=x_label, ylabel=y_label, yscale="log" if logarithmic else "linear")
    axis.margins(x=0.01)
    if percent:
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _label_ends(axis, ends)
    return figure


@styled
def bars_with_intervals(
    values: Mapping[str, Sequence[float]],
    *,
    title: str = "",
    x_label: str = "",
    intervals: Mapping[str, tuple[float, float]] | None = None,
    baselines: Mapping[str, float] | None = None,
    highlight: str | None = None,
    start: float | None = None,
    percent: bool = False,
    note: str = "",
) -> Figure:
    """Draw a bar for each name, as long as the mean of its values (one a seed), with a dot for each value.

    The whisker is the interval given by name as (low, high); without, one standard deviation to both sides.
    `highlight` names the bar that the figure is about. With `start` the axis begins there, to see small differences,
    and means are drawn as points: a bar that doesn't begin at zero would lie. Raises ValueError when a name has no values.
    """
    require(bool(values), "bars_with_intervals needs at least one bar")
    for name, seeds in values.items():
        require(np.ndim(seeds) == 1 and len(seeds) > 0, f"{name!r} needs a list of values, one a seed, not {seeds!r}")
    height = 1.2 + 0.5 * len(values) + 0.25 * len(baselines or {}) + frame_height(title, note)
    figure, axes = subplots(title, height=height, note=note)
    axis = axes[0, 0]
    furthest = max((baselines or {}).values(), default=0.0)
    for place, (name, seeds) in enumerate(values.items()):
        mean, spread = float(np.mean(seeds)), float(np.std(seeds, ddof=1)) if len(seeds) > 1 else 0.0
        low, high = (intervals or {}).get(name, (mean - spread, mean + spread))
        colour = BLUE if highlight in (None, name) else PALE
        if start is None:
            axis.barh(place, mean, height=0.62, color=colour)
        else:
            axis.scatter(mean, place, s=90, color=colour, marker="D", zorder=2)
        axis.plot([low, high], [place, place], color=INK, linewidth=1.6, zorder=3)
        if len(seeds) > 1:
            axis.scatter(seeds, np.full(len(seeds), place), s=20, color="white", edgecolor=INK, linewidth=0.9, zorder=4)
        end = max(high, *seeds)
        furthest = max(furthest, end)
        label = {"xytext": (9, 0), "textcoords": "offset points", "va": "center", "fontweight": "bold"}
        axis.annotate(number_text(mean, percent), (max(end, 0.0), place), **label)
    _mark_baselines(axis, baselines or {}, percent)
    axis.set(xlabel=x_label, ylim=(len(values) - 0.5, -0.5))
    axis.set_xlim(start, furthest + 0.12 * (furthest - (start or 0.0)) if furthest > 0 else None)
    axis.set_yticks(range(len(values)), list(values), color=INK, fontsize=11)
    axis.grid(axis="x")
    axis.grid(visible=False, axis="y")
    axis.spines["left"].set_visible(False)
    if percent:
        axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return figure


def _mark_baselines(axis: Axes, baselines: Mapping[str, float], percent: bool) -> None:
    place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "center"}
    for floor, (name, value) in enumerate(baselines.items()):
        axis.axvline(value, **DASHED)
        text = f"{name} {number_text(value, percent)}"
        axis.annotate(text, (value, 1), xytext=(0, 4 + 15 * floor), color=GRAY, fontsize=10, **place)


def _aligned(name: str, seeds: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps that all seeds have in common, and their values there, [seeds, steps]."""
    curves = []
    for steps, values in seeds:
        paired = np.ndim(steps) == 1 and np.shape(steps) == np.shape(values) and len(steps) > 0
        require(paired, f"the curve {name!r} has steps {np.shape(steps)} and values {np.shape(values)}: pair them up")
        curves.append(dict(zip(np.asarray(steps, float).tolist(), np.asarray(values, float).tolist(), strict=True)))
    common = sorted(set.intersection(*map(set, curves)))
    require(bool(common), f"the seeds of {name!r} have no step in common, so they have no mean")
    return np.array(common), np.array([[curve[step] for step in common] for curve in curves])


def _label_ends(axis: Axes, ends: Sequence[tuple[str, float, str]], gap: float = 0.07) -> None:
    """Write each name where its line ends, pushed apart where they would cover one another."""
    axis.autoscale_view()
    to_share = axis.transData + axis.transAxes.inverted()
    ends = sorted(ends, key=lambda end: end[1])
    wanted = [float(to_share.transform((1.0, value))[1]) for _, value, _ in ends]
    # Labels too close make a pile, centered on the mean of where its members would like to be.
    piles: list[list[float]] = []
    for height in wanted:
        piles.append([height])
        while len(piles) > 1 and np.mean(piles[-1]) - np.mean(piles[-2]) < gap * (len(piles[-1]) + len(piles[-2])) / 2:
            piles[-2:] = [piles[-2] + piles[-1]]
    heights = [np.mean(pile) + gap * (place - (len(pile) - 1) / 2) for pile in piles for place in range(len(pile))]
    style = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "center", "annotation_clip": False}
    for (name, _, colour), height in zip(ends, heights, strict=True):
        axis.annotate(name, (1.0, height), (7, 0), color=colour, fontweight="bold", **style)
