"""An exponential moving average of the weights: a calmer model beside the one that learns."""

import copy

import torch
from torch import nn

from shared.training.dtensor import own_share


class ExponentialMovingAverage:
    """Keep `average` ← decay · average + (1 − decay) · weights, after every step (Polyak averaging; arXiv:1803.05407).

    In the first steps the decay is smaller, (1 + step) / (10 + step), so that a short run's average
    is not mostly the random weights it began with. Buffers are copied, not averaged.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.average = copy.deepcopy(model).eval().requires_grad_(False)

    def decay_at(self, step: int) -> float:
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights as they are after step number `step` (counted from 0)."""
        averages = [own_share(average) for average in self.average.parameters()]
        weights = [own_share(weight) for weight in model.parameters()]
        torch._foreach_lerp_(averages, weights, 1 - self.decay_at(step))
        for average, buffer in zip(self.average.buffers(), model.buffers(), strict=True):
            average.copy_(buffer)
