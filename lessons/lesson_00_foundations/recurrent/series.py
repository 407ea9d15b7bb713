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


def mackey_glass(count: int, seed: int) -> list[float]:
    """The series from a start drawn by `seed`, every `SPACING` days, integrated by Heun's method."""
    back, every = round(DELAY / STEP), round(SPACING / STEP)
    random = Random(seed)
    values = [random.uniform(0.6, 1.4)] * (back + 1)

    def slope(now: float, then: float) -> float:
        return 0.2 * then / (1.0 + then**10) - 0.1 * now

    for _ in range(round(WASHOUT / STEP) + count * every):
        now = values[-1]
        first = slope(now, values[-1 - back])
        second = slope(now + STEP * first, values[-back])
        values.append(now + STEP * 0.5 * (first + second))
    return values[-count * every :: every]


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
