"""Stages: which parts of a model learn, and for how many steps."""

import contextlib
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Stage:
    """For `steps` steps, only the parameters whose names match one of the patterns `trainable` learn.

    Patterns are those of a shell: `Stage(500, ("projector.*",))`, then `Stage(1000, ("projector.*", "decoder.*"))`.
    """

    steps: int
    trainable: tuple[str, ...]


def check_stages(stages: tuple[Stage, ...], steps: int, model: nn.Module) -> None:
    """Raise ValueError when the stages don't add up to the run, or a pattern names nothing in the model."""
    if stages and sum(stage.steps for stage in stages) != steps:
        lengths = " + ".join(str(stage.steps) for stage in stages)
        raise ValueError(f"the stages last {lengths} steps and the run {steps}; make them add up")
    names = [name for name, _ in model.named_parameters()]
    for pattern in (pattern for stage in stages for pattern in stage.trainable):
        if not fnmatch.filter(names, pattern):
            raise ValueError(f"no parameter matches {pattern!r}; the model has {', '.join(names[:8])}, …")


def stage_at(stages: tuple[Stage, ...], step: int) -> Stage | None:
    """Return the stage that `step` belongs to, or None when there are no stages."""
    for stage in stages:
        if step < stage.steps:
            return stage
        step -= stage.steps
    return None


def enter_stage(model: nn.Module, stage: Stage) -> None:
    """Freeze and unfreeze: a frozen parameter gets no gradient, and without one no optimizer touches it."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatch.fnmatch(name, pattern) for pattern in stage.trainable))


def training_mode(model: nn.Module) -> None:
    """Like `model.train()`, but a part of which every parameter is frozen stays in evaluation mode.

    A frozen part is a fixed function: no dropout inside, and running averages that stand still too.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


@contextlib.contextmanager
def frozen_parts_restored(model: nn.Module) -> Iterator[None]:
    """On leaving, what was free and what was frozen before is so again: stages end with the run."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, learns in before:
            parameter.requires_grad_(learns)
