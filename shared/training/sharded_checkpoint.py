"""A folder that holds a whole run: each process writes its own shares, and any number of processes can read them.

`torch.distributed.checkpoint` splits and joins the tensors. Its usual storage pickles; we use its Hugging Face storage,
plain safetensors files that say in their header which part of which tensor they hold. A file training.json says the
rest, with the checksum of every file, and is written last: a folder without it was never finished.
"""

import json
import os
import shutil
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shared.atomic import disk_errors, write_atomically
from shared.distributed import gather_values, is_main, rank, world_size
from shared.errors import CourseError
from shared.training.checkpoint import (
    DamagedCheckpoint,
    TrainingState,
    check_fit,
    check_settings,
    module_tensors,
    restore_optimizer,
    state_tensors,
    under,
)
from shared.training.metrics import mean_sums
from shared.training.random_state import random_numbers, random_tensors, restore_random

HEADER, PREFIX, UNFINISHED, DAMAGED = "training.json", "checkpoint-", "unfinished-", "damaged-"


def sharded_checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints of a run's folder, the newest first. (One that a person has renamed is left to them.)"""
    finished = [path.parent for path in folder.glob(f"{PREFIX}*/{HEADER}")]
    return sorted((path for path in finished if path.name.removeprefix(PREFIX).isdigit()), key=step_of, reverse=True)


def step_of(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))


def remove_sharded(paths: Iterable[Path]) -> None:
    """Remove checkpoints; the header goes first, so that a half-removed one is none."""
    for path in paths:
        with disk_errors(path):
            (path / HEADER).unlink(missing_ok=True)
            shutil.rmtree(path)


def set_aside(paths: Iterable[Path]) -> None:
    """Rename damaged checkpoints, so that they take no other's place and whoever wants to can look at them."""
    for path in paths:
        aside = path.with_name(DAMAGED + path.name)
        with disk_errors(path):
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(path, aside)


# ── Saving ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def staged(state: TrainingState) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Copy on the CPU what this process holds of `state`, and what the header will say. All processes call this alike."""
    tensors = state_tensors(state) | {
        f"random.{rank()}.{name}": value for name, value in random_tensors(state.device).items()
    }
    header = {
        "step": state.step,
        "seconds": state.seconds,
        "sums": mean_sums(state.sums),
        "settings": state.settings,
        "random": gather_values(random_numbers()),  # one entry for each process
    }
    # `clone` also where the CPU is where they are: training goes on while these are being written.
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}, header


def write_sharded(path: Path, tensors: dict[str, Tensor], header: dict[str, Any], group: Any) -> None:
    """Write what all processes have staged to the folder `path`: under another name, which is changed when all is there.

    `group` is a process group for this alone, so that the training's own traffic may go on meanwhile.
    Raises CourseError, in every process alike, when a disk refuses; nothing has changed then but for a folder of another
    name.
    """
    from torch.distributed import checkpoint as storage  # here and below, for one process alone need not wait for it

    unfinished = path.with_name(UNFINISHED + path.name)
    writer = storage.HuggingFaceStorageWriter(str(unfinished), save_distributed=True)
    try:
        storage.save(tensors, storage_writer=writer, process_group=group)
    except storage.api.CheckpointException as error:
        raise _in_words(path, error) from error
    mine = {file.name: _size_and_checksum(file) for file in unfinished.glob(f"shard-{rank() + 1:05}-*")}
    files = {name: value for part in gather_values(mine, group) for name, value in part.items()}
    refused = None
    if is_main():
        try:
            _finish(unfinished, path, header | {"files": files})
        except CourseError as error:
            refused = str(error)
    # Nobody takes it for saved before it is.
    if refused := next(filter(None, gather_values(refused, group)), None):
        raise CourseError(refused)


def _finish(unfinished: Path, path: Path, header: dict[str, Any]) -> None:
    content = json.dumps({"training": header, "checksum": _header_checksum(header)})
    write_atomically(unfinished / HEADER, content.encode())
    with disk_errors(path):
        if path.exists():
            remove_sharded([path])
        os.replace(unfinished, path)


def _in_words(path: Path, error: Any) -> Exception:
    process, (cause, _) = next(iter(error.failures.items()))
    if not isinstance(cause, OSError):
        return RuntimeError(str(cause))
    return CourseError(
        f"cannot write {path}: {cause.strerror or cause} (process {process}). "
        "What was saved before is untouched: make room or set the permissions right, then go on with RESUME=1"
    )


# ── Loading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def load_sharded(path: Path, state: TrainingState) -> None:
    """Bring `state`, freshly built, to where the run that wrote `path` was, however many processes either has.

    Random states are per process: a process whose number the writing run did not have keeps its fresh one.
    Raises DamagedCheckpoint and CourseError as `load_checkpoint` does, in every process alike.
    """
    header, given = read_header(path), read_index(path)
    check_settings(path, header["settings"], state.settings)
    tensors = {f"model.{name}": tensor.detach() for name, tensor in module_tensors(state.model).items()}
    if state.ema is not None:
        tensors |= {f"average.{name}": tensor.detach() for name, tensor in module_tensors(state.ema.average).items()}
    parts = {name: meta for name, meta in given.items() if name.startswith(("model.", "average."))}
    check_fit(path, tensors, parts)
    tensors |= _room_for_optimizers(state.model, given)
    own_random = f"random.{rank()}."
    tensors |= {
        name: torch.empty_like(meta, device="cpu") for name, meta in given.items() if name.startswith(own_random)
    }

    _read(path, tensors)
    for optimizer in state.optimizers:
        restore_optimizer(optimizer, state.model, tensors)
    if rank() < len(header["random"]):
        restore_random(under(own_random, tensors), header["random"][rank()], state.device)
    state.step, state.seconds, state.sums = header["step"], header["seconds"], header["sums"]


def load_sharded_weights(model: nn.Module, path: Path, *, average: bool) -> nn.Module:
    """Put the weights, or the averaged ones, into a plain `model` and return it. Raises CourseError when they don't fit."""
    read_header(path)
    prefix = "average." if average else "model."
    given = under(prefix, read_index(path))
    if average and not given:
        raise CourseError(f"{path} holds no averaged weights: it was trained without ema_decay")
    wanted = module_tensors(model)
    check_fit(path, wanted, given)
    _read(path, {prefix + name: tensor.detach() for name, tensor in wanted.items()})
    return model


def read_header(path: Path) -> dict[str, Any]:
    """Return what training.json says, after checking every file against it, each process its part of them.

    Raises DamagedCheckpoint, in every process.
    """
    try:
        content = json.loads((path / HEADER).read_text(encoding="utf-8"))
        header = content["training"]
        damaged = [] if content["checksum"] == _header_checksum(header) else [HEADER]
        files = sorted(header["files"].items())
    except FileNotFoundError as error:
        raise CourseError(f"there is no checkpoint at {path}") from error
    except (ValueError, TypeError, KeyError, AttributeError):
        damaged, files = [HEADER], []
    for name, recorded in files[rank() :: world_size()]:
        if not (path / name).exists() or _size_and_checksum(path / name) != recorded:
            damaged.append(name)
    if damaged := sorted({name for part in gather_values(damaged) for name in part}):
        raise DamagedCheckpoint(f"{path} is damaged: not as they were written are {', '.join(damaged)}")
    return header


def read_index(path: Path) -> dict[str, Tensor]:
    """Name, shape and type of every tensor in a checkpoint, as tensors without content."""
    from torch.distributed import checkpoint as storage

    entries = storage.HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    return {
        name: torch.empty(entry.size, dtype=entry.properties.dtype, device="meta") for name, entry in entries.items()
    }


def _room_for_optimizers(model: nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Empty tensors for the optimizers' state, shared out as the parameters are that they belong to."""
    parameters, room = dict(model.named_parameters()), {}
    for name, meta in under("optimizer.", given).items():
        parameter = parameters[name.rsplit(".", 1)[0]].detach()
        # A moment is as large as its parameter; the number of steps is one number.
        like = parameter if meta.shape == parameter.shape else meta.new_empty(meta.shape, device=parameter.device)
        room[f"optimizer.{name}"] = torch.zeros_like(like, dtype=meta.dtype)
    return room


def _read(path: Path, tensors: dict[str, Tensor]) -> None:
    from torch.distributed import checkpoint as storage

    reader = storage.HuggingFaceStorageReader(str(path))
    try:
        with warnings.catch_warnings():  # that there is one process, where there is
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            storage.load(tensors, storage_reader=reader, no_dist=world_size() == 1)
    except storage.api.CheckpointException as error:
        cause = next(iter(error.failures.values()))[0]
        raise CourseError(f"cannot read {path}: {cause}") from error


def _size_and_checksum(file: Path) -> list[int]:
    checksum = 0
    with open(file, "rb") as content:
        while piece := content.read(1 << 20):
            checksum = zlib.crc32(piece, checksum)
    return [file.stat().st_size, checksum]


def _header_checksum(header: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(header, sort_keys=True).encode())
