"""Learning curves and bar charts, with baselines and intervals."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

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
    Labels,
    frame_height,
    number_text,
    require,
    styled,
    subplots,
)

Curve = tuple[Sequence[float], Sequence[float]]
"""The steps of a curve and the values measured at them."""


@styled
def learning_curves(
    curves: Mapping[str, Sequence[Curve]],
    *,
    baselines: Mapping[str, float] | None = None,
    percent: bool = False,
    logarithmic: bool = False,
    **labels: Unpack[Labels],
) -> Figure:
    """Draw one curve per name, labeled at its end, and dashed lines for the baselines.

    `curves[name]` contains a curve (steps, values) per seed; several are drawn as their mean, over a band from the
    minimum to the maximum. The axes are labeled "training step" and "loss" unless `labels` contains others.

    Raises ValueError when a curve's steps and values don't pair up, or when there are no curves or too many.
    """
    require(bool(curves) and all(curves.values()), "learning_curves needs at least one curve under every name")
    require(len(curves) <= len(PALETTE), f"{len(curves)} curves can't be distinguished; draw at most {len(PALETTE)}")
    figure, axes = subplots(labels.get("title", ""), note=labels.get("note", ""))
    axis = axes[0, 0]
    ends = []
    for (name, seeds), color in zip(curves.items(), PALETTE, strict=False):
        steps, values = _aligned(name, seeds)
        axis.plot(steps, values.mean(0), color=color)
        if len(values) > 1:
            axis.fill_between(steps, values.min(0), values.max(0), color=color, alpha=0.18, linewidth=0)
        ends.append((name, values[:, -1].mean(), color))
    for name, value in (baselines or {}).items():
        axis.axhline(value, **DASHED)
        ends.append((name, value, GRAY))
    x_label, y_label = labels.get("x_label", "training step"), labels.get("y_label", "loss")
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
    intervals: Mapping[str, tuple[float, float]] | None = None,
    baselines: Mapping[str, float] | None = None,
    highlight: str | None = None,
    start: float | None = None,
    percent: bool = False,
    **labels: Unpack[Labels],
) -> Figure:
    """Draw one bar per name, as long as the mean of its values (one per seed), with a dot per value.

    The whisker is the interval (low, high) of that name in `intervals`; without one, it is one standard deviation in
    both directions. `highlight` names the bar to emphasize. With `start` the axis begins there, which shows small
    differences; means are then drawn as points, because a bar that does not start at zero would mislead.

    Raises ValueError when there are no bars, or a name has no values.
    """
    require(bool(values), "bars_with_intervals needs at least one bar")
    for name, seeds in values.items():
        require(np.ndim(seeds) == 1 and len(seeds) > 0, f"{name!r} needs a list of values, one per seed, not {seeds!r}")
    title, note = labels.get("title", ""), labels.get("note", "")
    height = 1.2 + 0.5 * len(values) + 0.25 * len(baselines or {}) + frame_height(title, note)
    figure, axes = subplots(title, height=height, note=note)
    axis = axes[0, 0]
    furthest = max((baselines or {}).values(), default=0.0)
    for place, (name, seeds) in enumerate(values.items()):
        mean, spread = float(np.mean(seeds)), float(np.std(seeds, ddof=1)) if len(seeds) > 1 else 0.0
        low, high = (intervals or {}).get(name, (mean - spread, mean + spread))
        color = BLUE if highlight in (None, name) else PALE
        if start is None:
            axis.barh(place, mean, height=0.62, color=color)
        else:
            axis.scatter(mean, place, s=90, color=color, marker="D", zorder=2)
        axis.plot([low, high], [place, place], color=INK, linewidth=1.6, zorder=3)
        if len(seeds) > 1:
            axis.scatter(seeds, np.full(len(seeds), place), s=20, color="white", edgecolor=INK, linewidth=0.9, zorder=4)
        end = max(high, *seeds)
        furthest = max(furthest, end)
        style: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontweight": "bold"}
        axis.annotate(number_text(mean, percent), (max(end, 0.0), place), xytext=(9, 0), **style)
    _mark_baselines(axis, baselines or {}, percent)
    axis.set(xlabel=labels.get("x_label", ""), ylim=(len(values) - 0.5, -0.5))
    axis.set_xlim(start, furthest + 0.12 * (furthest - (start or 0.0)) if furthest > 0 else None)
    axis.set_yticks(range(len(values)), list(values), color=INK, fontsize=11)
    axis.grid(axis="x")
    axis.grid(visible=False, axis="y")
    axis.spines["left"].set_visible(False)
    if percent:
        axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return figure


def _mark_baselines(axis: Axes, baselines: Mapping[str, float], percent: bool) -> None:
    style: dict[str, Any] = {
        "xycoords": ("data", "axes fraction"),
        "textcoords": "offset points",
        "ha": "center",
        "color": GRAY,
        "fontsize": 10,
    }
    for level, (name, value) in enumerate(baselines.items()):
        axis.axvline(value, **DASHED)
        text = f"{name} {number_text(value, percent)}"
        axis.annotate(text, (value, 1), xytext=(0, 4 + 15 * level), **style)


def _aligned(name: str, seeds: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps that all seeds share, and their values at these steps, [seeds, steps]."""
    curves = []
    for steps, values in seeds:
        paired = np.ndim(steps) == 1 and np.shape(steps) == np.shape(values) and len(steps) > 0
        require(paired, f"the curve {name!r} has steps {np.shape(steps)} and values {np.shape(values)}: pair them up")
        curves.append(dict(zip(np.asarray(steps, float).tolist(), np.asarray(values, float).tolist(), strict=True)))
    common = sorted(set.intersection(*map(set, curves)))
    require(bool(common), f"the seeds of {name!r} have no step in common, so they have no mean")
    return np.array(common), np.array([[curve[step] for step in common] for curve in curves])


def _label_ends(axis: Axes, ends: Sequence[tuple[str, float, str]], gap: float = 0.07) -> None:
    """Write each name where its line ends; move names apart where they would overlap."""
    axis.autoscale_view()
    to_fraction = axis.transData + axis.transAxes.inverted()
    ends = sorted(ends, key=lambda end: end[1])
    targets = [float(to_fraction.transform((1.0, value))[1]) for _, value, _ in ends]
    # Labels that are too close form a group, centered on the mean of its members' targets.
    groups: list[list[float]] = []
    for height in targets:
        groups.append([height])
        while (
            len(groups) > 1
            and np.mean(groups[-1]) - np.mean(groups[-2]) < gap * (len(groups[-1]) + len(groups[-2])) / 2
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    heights = [
        float(np.mean(group)) + gap * (place - (len(group) - 1) / 2) for group in groups for place in range(len(group))
    ]
    style: dict[str, Any] = {
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "va": "center",
        "annotation_clip": False,
        "fontweight": "bold",
    }
    for (name, _, color), height in zip(ends, heights, strict=True):
        axis.annotate(name, (1.0, height), (7, 0), color=color, **style)
