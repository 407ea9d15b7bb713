"""The state of a run between two steps, as named tensors that both checkpoint formats write and restore."""

from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shared.errors import CourseError
from shared.training.dtensor import shard_like
from shared.training.ema import ExponentialMovingAverage


class DamagedCheckpoint(CourseError):
    """A checkpoint whose content is not what was written: cut short, partly overwritten, or with changed bytes."""


class ForeignCheckpoint(CourseError):
    """A safetensors file that the training loop did not write."""


@dataclass
class TrainingState:
    """Hold everything that changes from step to step. The schedule and the data are functions of the step.

    settings  what must be equal for a run to continue: the configuration and the stages
    step      optimizer steps taken
    seconds   time spent on them, over all sessions
    sums      metrics gathered since the log's last line
    """

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    ema: ExponentialMovingAverage | None
    device: torch.device
    settings: dict[str, Any]
    step: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)


def state_tensors(state: TrainingState) -> dict[str, Tensor]:
    """Return the weights, their average and the optimizers' state, by the names that checkpoints use."""
    tensors = model_tensors(state)
    names = {parameter: name for name, parameter in state.model.named_parameters()}
    for optimizer in state.optimizers:
        for parameter, values in optimizer.state.items():
            prefix = f"optimizer.{names[parameter]}"  # type: ignore[index]  # the keys of `state` are parameters
            tensors |= {f"{prefix}.{key}": value for key, value in values.items() if value is not None}
    return tensors


def model_tensors(state: TrainingState) -> dict[str, Tensor]:
    """Return the weights and their average, by the names that checkpoints use."""
    tensors = {f"model.{name}": tensor for name, tensor in module_tensors(state.model).items()}
    if state.ema is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in module_tensors(state.ema.average).items()}
    return tensors


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers, each once: tied weights appear under their first name only."""
    persistent = set(module.state_dict())
    named = chain(module.named_parameters(), module.named_buffers())
    return {name: tensor for name, tensor in named if name in persistent}


def restore_module(path: Path, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy `tensors`, which were read from `path`, into `module`. Raises CourseError when they do not fit."""
    targets = module_tensors(module)
    check_fit(path, targets, tensors)
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(shard_like(tensors[name], target))


def restore_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give `optimizer` the state that `tensors` hold for its parameters.

    `torch.distributed.checkpoint.state_dict` would first take a step with zero gradients to create the state.
    That gives a state to parameters that have none so far because a stage has frozen them.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    values_of: dict[str, dict[str, Tensor]] = {}
    for name, tensor in select_prefix("optimizer.", tensors).items():
        parameter_name, key = name.rsplit(".", 1)
        values_of.setdefault(parameter_name, {})[key] = tensor
    # PyTorch numbers the parameters across the groups.
    state = {
        index: {key: _shard_moment(value, parameter) for key, value in values_of[names[parameter]].items()}
        for index, parameter in enumerate(parameters)
        if names[parameter] in values_of
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _shard_moment(value: Tensor, parameter: Tensor) -> Tensor:
    """Shard a moment like its parameter, whose shape it has; a step count belongs to all processes."""
    if value.shape != parameter.shape or type(value) is type(parameter.detach()):
        return value
    return shard_like(value, parameter)


def check_fit(path: Path, expected: dict[str, Tensor], saved: dict[str, Tensor]) -> None:
    """Raise CourseError, listing all differences, when names, shapes or types are not those of the model."""
    mismatched = [
        f"{name}: {_describe(saved[name])} where the model has {_describe(tensor)}"
        for name, tensor in expected.items()
        if name in saved and _describe(saved[name]) != _describe(tensor)
    ]
    faults = {
        "missing": sorted(expected.keys() - saved.keys()),
        "surplus": sorted(saved.keys() - expected.keys()),
        "of another shape": mismatched,
    }
    if any(faults.values()):
        lines = [f"{len(names)} {fault}: {_abbreviate(names)}" for fault, names in faults.items() if names]
        raise CourseError(f"{path} does not fit this model:\n  " + "\n  ".join(lines))


def check_settings(path: Path, saved: dict[str, Any], current: dict[str, Any]) -> None:
    """Raise CourseError, with both values of each difference, when the run in `path` had other settings."""
    differences = [
        f"{name}: {saved.get(name)!r} there, {current.get(name)!r} here"
        for name in sorted(saved.keys() | current.keys())
        if saved.get(name) != current.get(name)
    ]
    if differences:
        raise CourseError(
            f"{path} belongs to a run with other settings ({'; '.join(differences)}); "
            "set them back to continue, or start without RESUME=1"
        )


def select_weights(path: Path, tensors: dict[str, Tensor], average: bool) -> dict[str, Tensor]:
    """Return a checkpoint's weights, or its averaged weights. Raises CourseError when it holds no average."""
    weights = select_prefix("average." if average else "model.", tensors)
    if average and not weights:
        raise CourseError(f"{path} holds no averaged weights: it was trained without ema_decay")
    return weights


def select_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with `prefix`, without the prefix."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}"


def _abbreviate(names: list[str], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (f", … and {len(names) - limit} more" if len(names) > limit else "")
