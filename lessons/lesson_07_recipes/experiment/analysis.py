"""Judge the effects of a two-level design: intervals over seeds, Lenth's standard error, half-normal plot, best recipe.

With one score per run there is no residual variance to compare an effect with. Lenth's pseudo standard error takes the
small effects as noise instead; it holds when few effects are real. With several seeds the bootstrap measures the noise.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lessons.lesson_07_recipes.experiment.factorial import Design, effect_estimates

STEPS = 2000
"""Intervals of the integral in `student_t_quantile`, an even number."""


def lenth_pseudo_standard_error(effects: Float[Tensor, " effects"]) -> Float[Tensor, ""]:
    """Return Lenth's pseudo standard error of effects that have no replicates, in the unit of the effects.

    1.5 times the median size estimates the standard error as if all effects were noise; the median of the sizes below
    2.5 times that estimate, times 1.5 again, leaves the real effects out. 0 when more than half of the effects are 0.

    Source: Lenth, "Quick and easy analysis of unreplicated factorials", Technometrics 31 (1989), eqs. 1 and 2.
    """
    sizes = effects.abs()
    # exercise 7.13: Lenth's pseudo standard error
    initial = 1.5 * sizes.quantile(0.5)
    noise = sizes[sizes < 2.5 * initial]
    error = 1.5 * noise.quantile(0.5) if len(noise) else initial
    # end exercise
    return error


@dataclass(frozen=True)
class Margins:
    """The sizes that effects must exceed, in their unit.

    single        an effect chosen beforehand: with probability 95 % noise stays below it
    simultaneous  any of the effects: with probability 95 % the largest of them stays below it when all are noise
    """

    single: float
    simultaneous: float


def lenth_margins(effects: Float[Tensor, " effects"], level: float = 0.95) -> Margins:
    """Return Lenth's margins of error (Technometrics 31, 1989, section 2): t with a third as many degrees of freedom.

    Raises ValueError for fewer than three effects.
    """
    count = len(effects)
    if count < 3:
        raise ValueError(f"{count} effects are too few for Lenth's margins; give at least 3")
    error = float(lenth_pseudo_standard_error(effects))
    single = student_t_quantile((1 + level) / 2, count / 3)
    simultaneous = student_t_quantile((1 + level ** (1 / count)) / 2, count / 3)
    return Margins(single * error, simultaneous * error)


def student_t_quantile(probability: float, degrees: float) -> float:
    """Return the quantile of Student's t for any number of degrees of freedom from 1 up.

    With t = √ν tan θ, P(|T| < t) is the integral of cos^(ν−1) up to θ over the one up to π/2. Simpson's rule and
    bisection give about six digits. Raises ValueError for a probability outside [0.5, 1) or fewer degrees.
    """
    if not 0.5 <= probability < 1 or degrees < 1:
        raise ValueError(f"the probability {probability} and {degrees} degrees; expected [0.5, 1) and at least 1")
    total = math.sqrt(math.pi) / 2 * math.exp(math.lgamma(degrees / 2) - math.lgamma((degrees + 1) / 2))

    def inside(angle: float) -> float:
        width = angle / STEPS
        values = [math.cos(place * width) ** (degrees - 1) for place in range(STEPS + 1)]
        return width / 3 * (values[0] + 4 * sum(values[1::2]) + 2 * sum(values[2:-1:2]) + values[-1]) / total

    low, high = 0.0, math.pi / 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < 2 * probability - 1 else (low, middle)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def bootstrap_intervals(
    estimates: Float[Tensor, "effects seeds"], *, resamples: int = 4000, level: float = 0.95, seed: int = 0
) -> Float[Tensor, "effects 2"]:
    """Return the percentile interval of each effect's mean over seeds.

    Whole seeds are drawn with replacement, for all effects together: runs of one seed share data and initial weights.
    Few seeds make the intervals too narrow. Raises ValueError for a single seed.
    """
    seeds = estimates.shape[1]
    if seeds < 2:
        raise ValueError("one seed has no spread; give the scores of at least two seeds")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(seeds, (resamples, seeds), generator=generator)
    means = estimates[:, drawn].mean(dim=2)
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=estimates.dtype)
    return means.quantile(ends, dim=1).T


@dataclass(frozen=True)
class HalfNormal:
    """The points of Daniel's half-normal plot, the smallest effect first.

    order      the place of each effect among those given
    quantiles  half-normal quantiles that sizes of pure noise would be proportional to
    sizes      absolute effects
    """

    order: Int[Tensor, " effects"]
    quantiles: Float[Tensor, " effects"]
    sizes: Float[Tensor, " effects"]


def half_normal(effects: Float[Tensor, " effects"]) -> HalfNormal:
    """Return the half-normal plot of effects: noise lies on a line through the origin, real effects above it.

    The i-th of m sizes stands at Φ⁻¹(½ + ½ (i − ½) / m). Source: Daniel, "Use of half-normal plots in interpreting
    factorial two-level experiments", Technometrics 1 (1959).
    """
    sizes, order = effects.abs().sort(stable=True)
    count = len(effects)
    quantiles = [NormalDist().inv_cdf(0.5 + 0.5 * (place + 0.5) / count) for place in range(count)]
    return HalfNormal(order, torch.tensor(quantiles, dtype=effects.dtype), sizes)


@dataclass(frozen=True)
class Prediction:
    """A recipe and the score that the main effects predict for it.

    levels  −1 or +1 per factor; 0 for a factor whose effect is not told from noise
    """

    levels: dict[str, int]
    score: float


def predict_best(design: Design, scores: Float[Tensor, "runs seeds"], margin: float = 0.0) -> Prediction:
    """Return the recipe with every factor at its better level, and its score: the mean plus half of each main effect.

    Main effects of at most `margin` in size count as noise: they leave their factor undecided and add nothing.
    Interactions are left out, so the prediction is as good as the assumption that factors add up.
    """
    effects = effect_estimates(design.columns([place] for place in range(len(design.factors))), scores).mean(dim=1)
    real = effects.abs() > margin
    levels = (effects.sign() * real).int().tolist()
    score = float(scores.mean() + (effects.abs() * real).sum() / 2)
    return Prediction(dict(zip(design.factors, levels, strict=True)), score)
