"""A loss as a sum and the number of its terms, so that batches of unequal numbers of terms add up correctly."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


class LossSum(NamedTuple):
    """Hold a loss as the sum of its terms and their number, such as the cross-entropies of a batch's answer tokens.

    A mean over ragged batches is no mean of the batches' means: 2 answer tokens would weigh as much as 11. The training
    loop therefore sums gradients over the batches and processes of a step, and divides once by the number of all terms.

    total  sum of the terms, with gradients
    terms  their number; a weighted term counts with its weight
    """

    total: Shaped[Tensor, ""]
    terms: Float[Tensor, ""]

    @classmethod
    def of(cls, total: Tensor, terms: Tensor | float | int) -> "LossSum":
        """Return the loss with the number of terms in floating point, on the device of the sum."""
        return cls(total, torch.as_tensor(terms, dtype=torch.float32, device=total.device))

    @classmethod
    def of_mean(cls, mean: Tensor, terms: Tensor | float | int) -> "LossSum":
        """Return the loss whose terms have this mean."""
        loss = cls.of(mean, terms)
        return cls(mean * loss.terms, loss.terms)

    def mean(self) -> Float[Tensor, ""]:
        """Return the mean over the terms. Raises ValueError when there is none."""
        if self.terms == 0:
            raise ValueError("the loss has no terms, so its mean is undefined; check the loss mask and the data")
        return self.total / self.terms


def add_losses(losses: Sequence[LossSum]) -> LossSum:
    """Return the loss of all batches together."""
    totals, terms = zip(*losses, strict=True)
    return LossSum(torch.stack(totals).sum(), torch.stack(terms).sum())


Metrics = Mapping[str, "Tensor | float | LossSum"]
LossValue = Tensor | LossSum | tuple[Tensor | LossSum, Metrics]


def split_metrics(value: LossValue) -> tuple[LossSum, Metrics]:
    """Return the loss and the metrics of what a loss function returned; a scalar is one term."""
    if isinstance(value, LossSum):
        return value, {}
    if isinstance(value, tuple):
        loss, metrics = value
        return split_metrics(loss)[0], metrics
    return LossSum.of(value, 1.0), {}
