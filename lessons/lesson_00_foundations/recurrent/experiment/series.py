"""A series worth predicting: Mackey and Glass's equation of how blood cells are made, which never repeats itself.

    x'(t) = 0.2 x(t - 17) / (1 + x(t - 17)¹⁰) - 0.1 x(t)        (Mackey & Glass 1977, Science 197: 287)

How many cells are made now depends on how many there were 17 days ago. From this delay comes chaos: the last value alone does
not tell the next. It has been a test of predictors ever since.
"""

from random import Random

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

DELAY = 17.0
STEP = 0.1  # of the integration
SPACING = 6.0  # between the values that one sees; the usual one for this series
WASHOUT = 500.0  # what the start has to do with it is forgotten by then


def integrate(start: float, days: float, step: float = STEP) -> list[float]:
    """x at 0, step, 2 · step, … up to `days`, from a past that was always `start`; by Heun's method.

    Heun's takes the mean of the slope here and the slope where it would lead: its error falls with the square of the step.
    """
    back = round(DELAY / step)
    values = [start] * (back + 1)

    def slope(now: float, then: float) -> float:
        return 0.2 * then / (1.0 + then**10) - 0.1 * now

    for _ in range(round(days / step)):
        now = values[-1]
        first = slope(now, values[-1 - back])
        second = slope(now + step * first, values[-back])
        values.append(now + step * 0.5 * (first + second))
    return values[back:]


def mackey_glass(count: int, seed: int) -> list[float]:
    """`count` values of the series, `SPACING` days apart, from a start drawn by `seed`, once it has forgotten it."""
    every = round(SPACING / STEP)
    values = integrate(Random(seed).uniform(0.6, 1.4), WASHOUT + (count - 1) * SPACING)
    return values[-1 - (count - 1) * every :: every]


def windows(values: list[float], length: int) -> Float[Tensor, "windows length"]:
    """Every stretch of `length` values that follow one another."""
    return torch.tensor(values).unfold(0, length, 1).contiguous()


def linear_prediction(
    train: Float[Tensor, "windows length"], test: Float[Tensor, "tests length"]
) -> Float[Tensor, " tests"]:
    """The next value as the best weighted sum of all but the last column: least squares, no more and no less."""

    def with_one(past: Tensor) -> np.ndarray:
        return np.hstack([past.double().numpy(), np.ones((len(past), 1))])

    weights, *_ = np.linalg.lstsq(with_one(train[:, :-1]), train[:, -1].double().numpy(), rcond=None)
    return torch.from_numpy(with_one(test[:, :-1]) @ weights).float()


def relative_error(guesses: Tensor, values: Tensor, spread: float) -> float:
    """Root of the mean squared error, in spreads (standard deviations) of the series: 1 is as good as its mean."""
    return ((guesses - values) ** 2).mean().sqrt().item() / spread
