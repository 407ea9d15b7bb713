"""A chaotic time series: Mackey and Glass's model of the production of blood cells.

    x'(t) = 0.2 x(t - 17) / (1 + x(t - 17)¹⁰) - 0.1 x(t)        (Mackey & Glass 1977, Science 197: 287)

The number of cells produced now depends on the number 17 days ago. This delay makes the series chaotic: the last value
alone does not determine the next. The series is a common benchmark of predictors.
"""

from random import Random

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

DELAY = 17.0
STEP = 0.1
"""Step of the integration, in days."""
SPACING = 6.0
"""Days between the values of a series; the usual choice for this benchmark."""
WASHOUT = 500.0
"""Days that are discarded, so that the series no longer depends on how it started."""


def integrate(start: float, days: float, step: float = STEP) -> list[float]:
    """Return x at 0, step, 2 · step, … up to `days` by Heun's method, with a constant past of `start`.

    Heun's method averages the derivatives at both ends of a step; its error falls with the square of the step.
    """
    delay = round(DELAY / step)
    values = [start] * (delay + 1)

    def derivative(current: float, delayed: float) -> float:
        return 0.2 * delayed / (1.0 + delayed**10) - 0.1 * current

    for _ in range(round(days / step)):
        current = values[-1]
        first = derivative(current, values[-1 - delay])
        second = derivative(current + step * first, values[-delay])
        values.append(current + step * 0.5 * (first + second))
    return values[delay:]


def mackey_glass(count: int, seed: int) -> list[float]:
    """Return `count` values of the series, `SPACING` days apart, from a random start and after the washout."""
    stride = round(SPACING / STEP)
    values = integrate(Random(seed).uniform(0.6, 1.4), WASHOUT + (count - 1) * SPACING)
    return values[-1 - (count - 1) * stride :: stride]


def windows(values: list[float], length: int) -> Float[Tensor, "windows length"]:
    """Return every window of `length` consecutive values."""
    return torch.tensor(values).unfold(0, length, 1).contiguous()


def linear_prediction(
    train: Float[Tensor, "windows length"], test: Float[Tensor, "tests length"]
) -> Float[Tensor, " tests"]:
    """Predict the last column from the others by linear regression, fitted to `train` by least squares."""

    def with_constant(past: Tensor) -> np.ndarray:
        return np.hstack([past.double().numpy(), np.ones((len(past), 1))])

    weights, *_ = np.linalg.lstsq(with_constant(train[:, :-1]), train[:, -1].double().numpy(), rcond=None)
    return torch.from_numpy(with_constant(test[:, :-1]) @ weights).float()


def relative_error(predictions: Tensor, values: Tensor, std: float) -> float:
    """Return the root mean squared error divided by the series' standard deviation: 1 is as good as its mean."""
    return ((predictions - values) ** 2).mean().sqrt().item() / std
