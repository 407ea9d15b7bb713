"""A run whose loss has exploded: finite, and of no use any more. Stop, keep the evidence, name the first suspect.

With clipped gradients a run rarely ends in NaN: it walks away in steps of limited length, and may spend a night at a loss of
a million. What counts as exploded is chosen so that no healthy run is stopped: not a bad batch, a spike that heals, a loss
that has fallen to nearly nothing and hops, a reward that is found late, a term that joins the loss midway.
So nothing is compared with the recent past, in which a hundredfold may be healthy, but with the worst that this run had ever
seen until a while ago, its untrained self included; and the loss must stay beyond a multiple of that, step after step.
Gradient norms are not judged: a healthy run's span orders of magnitude, and what they do to the weights, clipping bounds.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shared.distributed import gather_values
from shared.errors import CourseError
from shared.training.checkpoint import TrainingState
from shared.training.dtensor import own_share
from shared.training.not_finite import keep_evidence

LAG = 100  # steps that a loss must be old before others are judged by it: growth must not be its own measure
PATIENCE = 20  # steps in a row: no bad batch lasts so long, and most spikes have healed


class Exploded(CourseError):
    """The loss has left everything that this run has seen far behind, and does not come back."""


class LossWatch:
    """Judges every step's loss by the highest until `LAG` steps ago, and knows each parameter's size when all was well.

    A loss is too high when it exceeds `factor` × that highest, or `factor` where it is below 1: a loss of nearly nothing
    has no scale. A loss that was too high is never a measure. A run that goes on takes its record from the log,
    `history`. `factor` None judges nothing.
    """

    def __init__(self, factor: float | None, history: Iterable[Mapping[str, float]] = ()):
        self.factor, self.too_high = factor, 0
        self.highest: float | None = None
        self.recent: deque[float] = deque()
        self.norms: dict[str, float] = {}
        self.norms_of = 0  # the step that they are from
        step = 0
        for line in history:
            if line.get("loss") is not None:  # the mean of the steps since the line before
                for _ in range(line["step"] - step):
                    self.exploded(line["loss"])
                step = line["step"]
        self.too_high = 0

    def exploded(self, loss: float) -> bool:
        """Take in the loss of a step, and say whether it is the last of too many that were too high."""
        if self.factor is None:
            return False
        if self.highest is not None and loss > self.factor * max(1.0, self.highest):
            self.too_high += 1
        else:
            self.too_high = 0
            self.recent.append(abs(loss))
            if len(self.recent) > LAG:
                self.highest = max(self.highest or 0.0, self.recent.popleft())
        return self.too_high >= PATIENCE

    def remember(self, model: nn.Module, step: int) -> None:
        """Keep the size of every parameter, unless something is going wrong already."""
        if self.factor is not None and not self.too_high:
            self.norms, self.norms_of = _norms(model), step

    def error(
        self, state: TrainingState, loss: float, batch_at: Callable[[int], Any], accumulate: int, folder: Path | None
    ) -> Exploded:
        """Return the error to raise, after saving the state and the batch at which it began in folder/exploded/."""
        began = state.step - PATIENCE + 1
        before, now = _over_processes(self.norms), _over_processes(_norms(state.model))
        growth = {name: norm / max(before[name], 1e-12) for name, norm in now.items()}
        name = max(growth, key=growth.__getitem__)
        message = (
            f"training stopped at step {state.step + 1}: for {PATIENCE} steps the loss has been more than "
            f"{self.factor:g} times the highest until {LAG} steps before ({loss:.3g} now, at most {self.highest:.3g} then). "
            f"The parameter that has grown most is {name}: {growth[name]:.3g} times as large as after step {self.norms_of}."
        )
        if folder is not None:
            number = began * accumulate
            keep_evidence(folder / "exploded", state, batch_at(number))
            message += f" The batch at which it began (number {number}) and the state now are in {folder / 'exploded'}."
        return Exploded(
            message
            + " Usual causes: too high a learning rate, too short a warm-up, a bad sample; where the loss is meant "
            "to rise so far, set explosion_factor=None"
        )


@torch.no_grad()
def _norms(model: nn.Module) -> dict[str, float]:
    """The size of each parameter, or of the share of it that this process holds."""
    named = dict(model.named_parameters())
    norms = torch._foreach_norm([own_share(parameter) for parameter in named.values()])
    return dict(zip(named, torch.stack(list(norms)).tolist(), strict=True))


def _over_processes(norms: dict[str, float]) -> dict[str, float]:
    """Norms of the whole parameters from those of their shares. (Of N copies: √N times as large, which no ratio notices.)"""
    parts = gather_values(norms)
    return {name: math.hypot(*(part[name] for part in parts)) for name in norms}
