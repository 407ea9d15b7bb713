"""One file that holds a whole run: weights, their average, optimizers, random states, step.

Everything is a named tensor or JSON in the header of a safetensors file. Nothing is pickled, so opening
a stranger's checkpoint runs nothing of theirs; and one file means that one rename makes it whole.
"""

import json
import zlib
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from shared.atomic import write_atomically
from shared.distributed import is_main
from shared.errors import CourseError
from shared.training.dtensor import shared_out
from shared.training.ema import ExponentialMovingAverage
from shared.training.random_state import random_numbers, random_tensors, restore_random

FILE_NAME = "checkpoint.safetensors"
PREVIOUS_NAME = "previous-checkpoint.safetensors"  # the one before it, for the day when the newest turns out damaged


class DamagedCheckpoint(CourseError):
    """A checkpoint that is not what was once written: cut short, half overwritten, or a byte in it has changed."""


class ForeignCheckpoint(CourseError):
    """A safetensors file that no run has written."""


@dataclass
class TrainingState:
    """What a run is made of between two steps. (The schedule and the data are functions of the step.)"""

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    ema: ExponentialMovingAverage | None
    device: torch.device
    settings: dict[str, Any]  # what must be equal for a run to go on: the configuration and the stages
    step: int = 0  # steps done
    seconds: float = 0.0  # spent on them, over all sittings
    sums: dict[str, float] = field(default_factory=dict)  # metrics gathered since the last line of the log


def save_checkpoint(path: Path, state: TrainingState, *, backup: Path | None = None) -> None:
    """Write `state` to `path`, atomically; with `backup` the file that was there goes on under that name.

    Raises CourseError when the disk refuses; nothing has changed then.
    """
    # Copies, for safetensors refuses tensors that are views of one memory, as two buffers may well be.
    tensors = state_tensors(state) | {f"random.{name}": tensor for name, tensor in random_tensors(state.device).items()}
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    header = {
        "step": state.step,
        "seconds": state.seconds,
        "sums": state.sums,
        "settings": state.settings,
        "random": random_numbers(),
    }
    header["checksum"] = _checksum(tensors, header)
    content = safetensors.torch.save(tensors, metadata={"training": json.dumps(header)})
    write_atomically(path, content, backup=backup)


def load_checkpoint(path: Path, state: TrainingState) -> None:
    """Bring `state`, freshly built, to where the run that wrote `path` was.

    Raises DamagedCheckpoint, and CourseError when the file is no checkpoint of a training run, belongs to other
    settings, or holds another model's weights; the message lists what is missing, surplus or of another shape.
    """
    tensors, header = read_checkpoint(path)
    check_settings(path, header["settings"], state.settings)
    _restore_module(path, state.model, tensors, "model.")
    if state.ema is not None:
        _restore_module(path, state.ema.average, tensors, "average.")
    for optimizer in state.optimizers:
        restore_optimizer(optimizer, state.model, tensors)
    if is_main():  # the others go on with streams of their own
        restore_random(under("random.", tensors), header["random"], state.device)
    state.step, state.seconds, state.sums = header["step"], header["seconds"], header["sums"]


def load_weights(model: nn.Module, path: Path, *, average: bool = False) -> nn.Module:
    """Put the weights of a run's checkpoint into `model` and return it; with `average`, the averaged ones.

    `path` is the checkpoint or the folder it lies in. Raises CourseError as `load_checkpoint` does; a damaged one is
    not quietly replaced by an older one, for these would be other weights, but the message names one that is whole.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    try:
        tensors, _ = read_checkpoint(path)
    except DamagedCheckpoint as damage:
        raise CourseError(f"{damage}; {_way_back(path)}") from damage
    if average and not under("average.", tensors):
        raise CourseError(f"{path} holds no averaged weights: it was trained without ema_decay")
    _restore_module(path, model, tensors, "average." if average else "model.")
    return model


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a checkpoint and its header, both verified. Raises DamagedCheckpoint and CourseError."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 – it is no dictionary
    except FileNotFoundError as error:
        raise CourseError(f"there is no checkpoint at {path}") from error
    except safetensors.SafetensorError as error:
        raise DamagedCheckpoint(f"{path} is damaged, or no safetensors file at all ({error})") from error
    except OSError as error:
        raise CourseError(f"cannot read {path}: {error.strerror or error}") from error
    if "training" not in metadata:
        raise ForeignCheckpoint(f"{path} was not written by the training loop: its header says nothing of a run")
    try:
        header = json.loads(metadata["training"])
        whole = header.pop("checksum") == _checksum(tensors, header)
    except (ValueError, TypeError, KeyError, AttributeError):  # whatever a header of noise may bring
        whole = False
    if not whole:
        raise DamagedCheckpoint(f"{path} is damaged: its checksum is not that of its content")
    return tensors, header


def read_step(path: Path) -> int:
    """How many steps the run had done that wrote the file; −1 where there is none, or none that can be read."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})["training"])["step"]
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError):
        return -1


def _way_back(path: Path) -> str:
    """Say which older checkpoint lies beside the damaged one at `path`."""
    previous = path.with_name(PREVIOUS_NAME)
    try:
        step = read_checkpoint(previous)[1]["step"]
    except CourseError:
        return "no other checkpoint that is whole lies beside it, so train again"
    return f"the one before it, {previous}, is whole: load that (step {step}), or train on from it with RESUME=1"


def state_tensors(state: TrainingState) -> dict[str, Tensor]:
    """Every tensor of weights, their average and the optimizers' state, by the names that checkpoints use."""
    tensors = {f"model.{name}": tensor for name, tensor in module_tensors(state.model).items()}
    if state.ema is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in module_tensors(state.ema.average).items()}
    names = {parameter: name for name, parameter in state.model.named_parameters()}
    for optimizer in state.optimizers:
        for parameter, values in optimizer.state.items():
            tensors |= {f"optimizer.{names[parameter]}.{key}": v for key, v in values.items() if v is not None}
    return tensors


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers, each once: tied weights appear under their first name only."""
    persistent = set(module.state_dict())
    named = chain(module.named_parameters(), module.named_buffers())
    return {name: tensor for name, tensor in named if name in persistent}


def _restore_module(path: Path, module: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    wanted, given = module_tensors(module), under(prefix, tensors)
    check_fit(path, wanted, given)
    with torch.no_grad():
        for name, want in wanted.items():
            want.copy_(shared_out(given[name], want))


def check_fit(path: Path, wanted: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    """Raise CourseError, with all that differs, when names, shapes or types are not those of the model."""
    misshapen = [
        f"{name}: {tuple(given[name].shape)} {given[name].dtype} where the model has {tuple(want.shape)} {want.dtype}"
        for name, want in wanted.items()
        if name in given and (given[name].shape, given[name].dtype) != (want.shape, want.dtype)
    ]
    faults = {
        "missing": sorted(wanted.keys() - given.keys()),
        "surplus": sorted(given.keys() - wanted.keys()),
        "of another shape": misshapen,
    }
    if any(faults.values()):
        lines = [f"{len(names)} {fault}: {_shortened(names)}" for fault, names in faults.items() if names]
        raise CourseError(f"{path} does not fit this model:\n  " + "\n  ".join(lines))


def restore_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give `optimizer` the state that `tensors` have for its parameters."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    values_of: dict[str, dict[str, Tensor]] = {}
    for name, tensor in under("optimizer.", tensors).items():
        parameter_name, key = name.rsplit(".", 1)
        values_of.setdefault(parameter_name, {})[key] = tensor
    # PyTorch counts parameters through the groups; a parameter that was frozen so far has no state yet.
    state = {
        place: {key: _as_shares(value, parameter) for key, value in values_of[names[parameter]].items()}
        for place, parameter in enumerate(parameters)
        if names[parameter] in values_of
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _as_shares(value: Tensor, parameter: Tensor) -> Tensor:
    """A moment is as large as its parameter, and shared out with it; a number of steps is for all."""
    already = value.shape != parameter.shape or type(value) is type(parameter.detach())
    return value if already else shared_out(value, parameter)


def check_settings(path: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise CourseError, with both values of each that differs, when the run in `path` was another one."""
    differing = [
        f"{name}: {saved.get(name)!r} there, {wanted.get(name)!r} here"
        for name in sorted(saved.keys() | wanted.keys())
        if saved.get(name) != wanted.get(name)
    ]
    if differing:
        raise CourseError(
            f"{path} belongs to a run with other settings ({'; '.join(differing)}); "
            "set them back to go on, or start without RESUME=1"
        )


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _checksum(tensors: dict[str, Tensor], header: dict[str, Any]) -> int:
    """A safetensors file notices that it was cut short, but not that a byte in it has changed: this does."""
    checksum = zlib.crc32(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        checksum = zlib.crc32(name.encode(), checksum)
        checksum = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy(), checksum)
    return checksum


def _shortened(names: list[str], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (f", … and {len(names) - limit} more" if len(names) > limit else "")
