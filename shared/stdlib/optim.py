"""Optimizers, gradient clipping and a learning-rate schedule."""

import math
from collections.abc import Iterable

from shared.stdlib.tensor import Tensor


class SGD:
    """Stochastic gradient descent, with optional momentum.

    v ← momentum · v + g,   w ← w - learning_rate · v
    """

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float, momentum: float = 0.0):
        self.parameters = list(parameters)
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.velocities = [[0.0] * len(parameter.data) for parameter in self.parameters]

    def step(self, factor: float = 1.0) -> None:
        """Update every parameter that has a gradient; `factor` scales the learning rate (from a schedule)."""
        rate = self.learning_rate * factor
        for number, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            if self.momentum:
                pairs = zip(self.velocities[number], parameter.grad, strict=True)
                self.velocities[number] = [self.momentum * v + g for v, g in pairs]
            update = self.velocities[number] if self.momentum else parameter.grad
            # A new list, not a change in place: results computed earlier keep the weights they were computed with.
            parameter.data = [w - rate * v for w, v in zip(parameter.data, update, strict=True)]


class Adam:
    """Adam: updates scaled by running means of the gradient and of its square (arXiv:1412.6980, alg. 1).

    m ← β₁ m + (1 - β₁) g,   v ← β₂ v + (1 - β₂) g²,   w ← w - learning_rate · m̂ / (√v̂ + eps)

    m and v start at 0 and are too small at first. The bias correction (the hats) divides them by 1 - βᵗ.
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
        self.first_moments = [[0.0] * len(parameter.data) for parameter in self.parameters]
        self.second_moments = [[0.0] * len(parameter.data) for parameter in self.parameters]
        self.steps = 0

    def step(self, factor: float = 1.0) -> None:
        """Update every parameter that has a gradient; `factor` scales the learning rate (from a schedule)."""
        self.steps += 1
        beta_1, beta_2 = self.betas
        rate = self.learning_rate * factor
        decay = 1.0 - rate * self.weight_decay
        step_size = rate / (1.0 - beta_1**self.steps)
        correction = 1.0 / math.sqrt(1.0 - beta_2**self.steps)
        sqrt, eps = math.sqrt, self.eps
        for number, parameter in enumerate(self.parameters):
            gradient = parameter.grad
            if gradient is None:
                continue
            self.first_moments[number] = first = [
                beta_1 * m + (1.0 - beta_1) * g for m, g in zip(self.first_moments[number], gradient, strict=True)
            ]
            self.second_moments[number] = second = [
                beta_2 * v + (1.0 - beta_2) * g * g for v, g in zip(self.second_moments[number], gradient, strict=True)
            ]
            parameter.data = [
                decay * w - step_size * m / (sqrt(v) * correction + eps)
                for w, m, v in zip(parameter.data, first, second, strict=True)
            ]


class AdamW(Adam):
    """Adam with decoupled weight decay: weights shrink at each step (arXiv:1711.05101, alg. 2)."""

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
    """Scale all gradients by one factor so that their common norm is at most `max_norm`. Return the norm before.

    So one bad batch costs one step of ordinary size (arXiv:1211.5063, alg. 1).
    """
    with_gradients = [parameter for parameter in parameters if parameter.grad is not None]
    norm = math.hypot(*(math.hypot(*(parameter.grad or ())) for parameter in with_gradients))
    if norm > max_norm:
        scale = max_norm / norm
        for parameter in with_gradients:
            parameter.grad = [scale * gradient for gradient in parameter.grad or ()]
    return norm


def warmup_cosine(step: int, steps: int, warmup_steps: int = 0, floor: float = 0.0) -> float:
    """Return the factor of the learning rate at `step` (from 0): linear warmup, then half a cosine down to `floor`.

    Warmup keeps Adam's first steps small while its moments are inaccurate. The cosine ends in small steps that
    settle (arXiv:1608.03983).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
