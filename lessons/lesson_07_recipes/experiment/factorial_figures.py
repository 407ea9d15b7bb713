"""Figures of a factorial experiment: all effects with intervals, and the half-normal plot of all effects."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from lessons.lesson_07_recipes.experiment.analysis import bootstrap_intervals, half_normal, lenth_margins
from lessons.lesson_07_recipes.experiment.factorial import Design, effect_estimates
from shared import plots
from shared.plots.style import DASHED, styled

PERCENT = 100.0
"""Scores are fractions; figures show points."""
NAMED = 7
"""The largest number of effects that a half-normal plot names all."""


def draw_effects(
    design: Design, scores: Float[Tensor, "runs seeds"], level_names: dict[str, tuple[str, str]]
) -> plots.Figure:
    """Draw every main effect and two-factor interaction in points, a dot per seed, largest first.

    level_names  the names of the levels −1 and +1 of each factor; a main effect is the second minus the first

    Scores are fractions between 0 and 1, of at least two seeds.
    """
    estimates = effect_estimates(design.columns(design.effects), scores) * PERCENT
    intervals = bootstrap_intervals(estimates)
    bars, whiskers = {}, {}
    for place in estimates.mean(dim=1).abs().argsort(descending=True).tolist():
        label = design.name(design.effects[place])
        if label in level_names:
            label += f"\n{level_names[label][1]} − {level_names[label][0]}"
        bars[label] = estimates[place].tolist()
        whiskers[label] = (float(intervals[place, 0]), float(intervals[place, 1]))
    return plots.bars_with_intervals(
        bars,
        intervals=whiskers,
        x_label="effect (points)",
        note=f"{len(scores)} runs, {scores.shape[1]} seeds; whiskers: 95 % bootstrap interval over seeds",
    )


@styled
def draw_half_normal(design: Design, scores: Float[Tensor, "runs seeds"]) -> plots.Figure:
    """Draw the sizes of all effects, averaged over seeds, against half-normal quantiles, with Lenth's margins.

    Effects beyond the margin of a single effect are blue. They are named, and of at most NAMED effects all are. The
    margin of any effect is drawn where it is not far above the largest one. Scores are fractions between 0 and 1.
    """
    effects = effect_estimates(design.columns(design.effects), scores).mean(dim=1) * PERCENT
    points, margins = half_normal(effects), lenth_margins(effects)
    figure, axes = plots.subplots(
        height=4.6, note=f"{len(scores)} runs; + and − give the direction; dashed: Lenth's margins (95 %)"
    )
    axis = axes[0, 0]
    real = points.sizes > margins.single
    for which, color in ((~real, plots.GRAY), (real, plots.BLUE)):
        axis.scatter(points.quantiles[which], points.sizes[which], s=42, color=color, zorder=3)
    for place in torch.nonzero(real | (len(effects) <= NAMED)).flatten().tolist():
        number = int(points.order[place])
        text = f"{design.name(design.effects[number])} {'+' if effects[number] > 0 else '−'}"
        position = (float(points.quantiles[place]), float(points.sizes[place]))
        axis.annotate(
            *(text, position, (2, 7)),
            textcoords="offset points",
            rotation=35,
            rotation_mode="anchor",
            va="bottom",
            fontweight="bold" if real[place] else None,
        )
    lower = max(float(points.sizes.max()), margins.single)
    lines = [(margins.single, "margin of one effect")]
    if margins.simultaneous < 1.5 * lower:
        lines.append((margins.simultaneous, "margin of any effect"))
    _mark(axis, lines)
    top = 1.2 * max(lower, *(height for height, _ in lines))
    axis.set(xlim=(0, 1.2 * float(points.quantiles[-1])), ylim=(0, top))
    axis.set(xlabel="half-normal quantile", ylabel="size of the effect (points)")
    return figure


def _mark(axis: Axes, lines: Sequence[tuple[float, str]]) -> None:
    for height, name in lines:
        axis.axhline(height, **DASHED)
        axis.annotate(name, (0, height), (6, 4), textcoords="offset points", color=plots.GRAY, fontsize=10)
