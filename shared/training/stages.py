"""Stages of a run: which parameters train, and for how many steps."""

import contextlib
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Stage:
    """Train only the parameters whose names match one of the patterns `trainable`, for `steps` steps.

    Patterns are shell patterns: `Stage(500, ("projector.*",))`, then `Stage(1000, ("projector.*", "decoder.*"))`.
    """

    steps: int
    trainable: tuple[str, ...]


def check_stages(stages: tuple[Stage, ...], steps: int, model: nn.Module) -> None:
    """Raise ValueError when the stages do not add up to `steps`, or a pattern matches no parameter."""
    if stages and sum(stage.steps for stage in stages) != steps:
        lengths = " + ".join(str(stage.steps) for stage in stages)
        raise ValueError(f"the stages have {lengths} steps and the run has {steps}; make them add up")
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
    """Freeze and unfreeze parameters. A frozen one gets no gradient, and without one no optimizer changes it."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatch.fnmatch(name, pattern) for pattern in stage.trainable))


def set_training_mode(model: nn.Module) -> None:
    """Call `model.train()`, but leave a module whose parameters are all frozen in evaluation mode.

    A frozen module is a fixed function: it applies no dropout, and its running averages do not change.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


@contextlib.contextmanager
def restore_frozen_parameters(model: nn.Module) -> Iterator[None]:
    """Restore on leaving this context which parameters are frozen, because stages end with the run."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)
