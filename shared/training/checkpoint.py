"""Checkpoints of a single process: one safetensors file with weights, average, optimizers, random states and step.

Everything is a named tensor or JSON in the file's header. Nothing is pickled, so opening a file from an untrusted
source executes nothing. Because it is one file, one rename replaces it atomically.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from shared.atomic import write_atomically
from shared.distributed import is_main
from shared.errors import CourseError
from shared.training.random_state import generator_states, python_random_states, restore_random_states
from shared.training.training_state import (
    DamagedCheckpoint,
    ForeignCheckpoint,
    TrainingState,
    check_settings,
    restore_module,
    restore_optimizer,
    select_prefix,
    select_weights,
    state_tensors,
)

FILE_NAME = "checkpoint.safetensors"
PREVIOUS_NAME = "previous-checkpoint.safetensors"  # a fallback in case the newest file is damaged later


def save_checkpoint(path: Path, state: TrainingState, *, backup: Path | None = None) -> None:
    """Write `state` to `path` atomically; with `backup`, the file that was there is kept under that name.

    Raises CourseError when the disk refuses; nothing has changed then.
    """
    # Copies, because safetensors refuses tensors that are views of the same memory, as two buffers may be.
    tensors = state_tensors(state) | {
        f"random.{name}": tensor for name, tensor in generator_states(state.device).items()
    }
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    header = {
        "step": state.step,
        "seconds": state.seconds,
        "sums": state.sums,
        "settings": state.settings,
        "random": python_random_states(),
    }
    header["checksum"] = _checksum(tensors, header)
    content = safetensors.torch.save(tensors, metadata={"training": json.dumps(header)})
    write_atomically(path, content, backup=backup)


def load_checkpoint(path: Path, state: TrainingState) -> None:
    """Bring `state`, freshly built, to the state that was saved in `path`.

    Raises DamagedCheckpoint, ForeignCheckpoint, and CourseError when the file belongs to other settings or another
    model. The message then lists what is missing, surplus or of another shape.
    """
    tensors, header = read_checkpoint(path)
    check_settings(path, header["settings"], state.settings)
    restore_module(path, state.model, select_prefix("model.", tensors))
    if state.ema is not None:
        restore_module(path, state.ema.average, select_prefix("average.", tensors))
    for optimizer in state.optimizers:
        restore_optimizer(optimizer, state.model, tensors)
    if is_main():  # the other processes continue with random streams of their own
        restore_random_states(select_prefix("random.", tensors), header["random"], state.device)
    state.step, state.seconds, state.sums = header["step"], header["seconds"], header["sums"]


def load_checkpoint_weights(model: nn.Module, path: Path, *, average: bool) -> nn.Module:
    """Copy the weights (with `average`, the averaged ones) from the file `path` into `model` and return it."""
    tensors, _ = read_checkpoint(path)
    restore_module(path, model, select_weights(path, tensors, average))
    return model


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a checkpoint's tensors and header, after verifying both.

    Raises DamagedCheckpoint, ForeignCheckpoint, and CourseError when the file is missing or cannot be read.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 – it is no dictionary
    except FileNotFoundError as error:
        raise CourseError(f"there is no checkpoint at {path}") from error
    except safetensors.SafetensorError as error:
        raise DamagedCheckpoint(f"{path} is damaged, or not a safetensors file ({error})") from error
    except OSError as error:
        raise CourseError(f"cannot read {path}: {error.strerror or error}") from error
    if "training" not in metadata:
        raise ForeignCheckpoint(f"{path} was not written by the training loop: its header describes no run")
    try:
        header = json.loads(metadata["training"])
        intact = header.pop("checksum") == _checksum(tensors, header)
    except (ValueError, TypeError, KeyError, AttributeError):  # a header of random bytes may raise any of these
        intact = False
    if not intact:
        raise DamagedCheckpoint(f"{path} is damaged: its checksum does not match its content")
    return tensors, header


def read_step(path: Path) -> int:
    """Return how many steps the run in `path` had taken; −1 when there is no file or its header cannot be read."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})["training"])["step"]
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError):
        return -1


def _checksum(tensors: dict[str, Tensor], header: dict[str, Any]) -> int:
    """Return a CRC over names, content and header. safetensors itself detects a cut file, but not a changed byte."""
    checksum = zlib.crc32(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        checksum = zlib.crc32(name.encode(), checksum)
        checksum = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, checksum)
    return checksum
