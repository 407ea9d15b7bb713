"""Optimizers: from gradients to the next weights.

Each holds the parameters it moves and whatever it remembers between steps. `step(rate)` makes one move; the learning
rate comes in with each step, because a schedule is just a number that changes.
"""

import math
from collections.abc import Iterable

from shared.stdlib.tensor import Tensor


class SGD:
    """Stochastic gradient descent: a step against the gradient, or with `momentum` against a running sum of gradients.

    w ← w - rate · v,   v ← momentum · v + g
    """

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float, momentum: float = 0.0):
        self.parameters = list(parameters)
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.velocities = [[0.0] * len(parameter.data) for parameter in self.parameters]

    def step(self, factor: float = 1.0) -> None:
        """Move every parameter that has a gradient; `factor` scales the learning rate (from a schedule)."""
        rate = self.learning_rate * factor
        for number, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            if self.momentum:
                pairs = zip(self.velocities[number], parameter.grad, strict=True)
                self.velocities[number] = [self.momentum * v + g for v, g in pairs]
            move = self.velocities[number] if self.momentum else parameter.grad
            # A new list, not the old one changed: results made earlier still hold the weights they were made with.
            parameter.data = [w - rate * v for w, v in zip(parameter.data, move, strict=True)]


class Adam:
    """Each weight moves at its own pace: by its mean gradient over the root of its mean squared gradient (arXiv:1412.6980, alg. 1).

    m ← β₁ m + (1 - β₁) g,   v ← β₂ v + (1 - β₂) g²,   w ← w - rate · m̂ / (√v̂ + eps)

    Both means start at 0 and are too small at first; dividing by 1 - βᵗ (the hats) makes up for it.
    """

    weight_decay = 0.0

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ):
        self.parameters = list(parameters)
        self.learning_rate, self.betas, self.eps = learning_rate, betas, eps
        self.means = [[0.0] * len(parameter.data) for parameter in self.parameters]
        self.squares = [[0.0] * len(parameter.data) for parameter in self.parameters]
        self.steps = 0

    def step(self, factor: float = 1.0) -> None:
        """Move every parameter that has a gradient; `factor` scales the learning rate (from a schedule)."""
        self.steps += 1
        beta, beta_square = self.betas
        rate = self.learning_rate * factor
        keep = 1.0 - rate * self.weight_decay
        pace = rate / (1.0 - beta**self.steps)
        correction = 1.0 / math.sqrt(1.0 - beta_square**self.steps)
        sqrt, eps = math.sqrt, self.eps
        for number, parameter in enumerate(self.parameters):
            gradient = parameter.grad
            if gradient is None:
                continue
            self.means[number] = means = [
                beta * m + (1.0 - beta) * g for m, g in zip(self.means[number], gradient, strict=True)
            ]
            self.squares[number] = squares = [
                beta_square * v + (1.0 - beta_square) * g * g
                for v, g in zip(self.squares[number], gradient, strict=True)
            ]
            parameter.data = [
                keep * w - pace * m / (sqrt(v) * correction + eps)
                for w, m, v in zip(parameter.data, means, squares, strict=True)
            ]


class AdamW(Adam):
    """Adam whose weights also shrink a little at each step, apart from the gradient (arXiv:1711.05101, alg. 2)."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        super().__init__(parameters, learning_rate, betas, eps)
        self.weight_decay = weight_decay


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients by one number so that together they are at most `max_norm` long; returns the length before.

    One bad batch then costs one step of ordinary size (arXiv:1211.5063, alg. 1).
    """
    held = [parameter for parameter in parameters if parameter.grad is not None]
    norm = math.hypot(*(math.hypot(*parameter.grad) for parameter in held))
    if norm > max_norm:
        scale = max_norm / norm
        for parameter in held:
            parameter.grad = [scale * slope for slope in parameter.grad]
    return norm


def warmup_cosine(step: int, steps: int, warmup_steps: int = 0, floor: float = 0.0) -> float:
    """The factor on the learning rate at `step` (counted from 0): up in a straight line, then down half a cosine to `floor`.

    Warming up keeps Adam's first, badly estimated strides short; the cosine ends in small steps that settle (arXiv:1608.03983).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
