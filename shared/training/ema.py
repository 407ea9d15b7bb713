"""An exponential moving average of the weights, kept as a second model."""

import copy

import torch
from torch import nn

from shared.training.dtensor import local_shard


class ExponentialMovingAverage:
    """Keep `average` ← decay · average + (1 − decay) · weights after every step (Polyak averaging; arXiv:1803.05407).

    The decay is at most (1 + step) / (10 + step), so that a short run's average is not dominated by the initial
    weights. Buffers are copied, not averaged.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.average = copy.deepcopy(model).eval().requires_grad_(False)

    def decay_at(self, step: int) -> float:
        """Return the decay after step number `step`, counted from 0."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Average in the weights as they are after step number `step`, counted from 0."""
        averages = [local_shard(average) for average in self.average.parameters()]
        weights = [local_shard(weight) for weight in model.parameters()]
        torch._foreach_lerp_(averages, weights, 1 - self.decay_at(step))
        for average, buffer in zip(self.average.buffers(), model.buffers(), strict=True):
            average.copy_(buffer)
