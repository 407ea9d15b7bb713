"""Checkpoints of several processes: a folder to which each writes its shards and from which any number can read.

`torch.distributed.checkpoint` (DCP) splits, writes, reads and reshards the tensors. Its default storage uses pickle, so
its Hugging Face storage is used instead: plain safetensors files that say which part of which tensor they hold.
DCP has no checksums and no atomic commit. The file training.json adds both: it holds the rest of the state and the
checksum of every file, and is written last. A folder without it is unfinished.
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
from shared.training.metrics import average_sums
from shared.training.random_state import generator_states, python_random_states, restore_random_states
from shared.training.training_state import (
    DamagedCheckpoint,
    TrainingState,
    check_fit,
    check_settings,
    model_tensors,
    module_tensors,
    restore_optimizer,
    select_prefix,
    select_weights,
    state_tensors,
)

HEADER, PREFIX, UNFINISHED, DAMAGED = "training.json", "checkpoint-", "unfinished-", "damaged-"


def list_sharded_checkpoints(folder: Path) -> list[Path]:
    """Return the finished checkpoints in a run's folder, newest first, except those that someone has renamed."""
    finished = [path.parent for path in folder.glob(f"{PREFIX}*/{HEADER}")]
    return sorted((path for path in finished if path.name.removeprefix(PREFIX).isdigit()), key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """Return the step that the name of a sharded checkpoint states."""
    return int(path.name.removeprefix(PREFIX))


def sharded_path(folder: Path, step: int) -> Path:
    """Return the path of the checkpoint of a step."""
    return folder / f"{PREFIX}{step:08}"


def remove_sharded_checkpoints(paths: Iterable[Path]) -> None:
    """Remove checkpoints. The header goes first, so that a partly removed one counts as unfinished."""
    for path in paths:
        with disk_errors(path):
            (path / HEADER).unlink(missing_ok=True)
            shutil.rmtree(path)


def set_aside_sharded_checkpoints(paths: Iterable[Path]) -> None:
    """Rename damaged checkpoints, so that they do not block a name and can still be inspected."""
    for path in paths:
        aside = path.with_name(DAMAGED + path.name)
        with disk_errors(path):
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(path, aside)


# ── Saving ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def stage_state(state: TrainingState) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a copy on the CPU of what this process holds of `state`, and the header. All processes must call this."""
    generators = {f"random.{rank()}.{name}": value for name, value in generator_states(state.device).items()}
    header = {
        "step": state.step,
        "seconds": state.seconds,
        "sums": average_sums(state.sums),
        "settings": state.settings,
        "random": gather_values(python_random_states()),  # one entry for each process
    }
    # `clone` even for tensors on the CPU, because training continues while these are being written.
    tensors = {name: value.detach().cpu().clone() for name, value in (state_tensors(state) | generators).items()}
    return tensors, header


def write_sharded_checkpoint(path: Path, tensors: dict[str, Tensor], header: dict[str, Any], group: Any) -> None:
    """Write what all processes have staged to the folder `path`, under a temporary name until everything is there.

    `group` is a process group for this purpose only, so that training can communicate at the same time.
    Raises CourseError, in every process alike, when a disk refuses; only a folder with another name is changed then.
    """
    from torch.distributed import checkpoint as dcp  # here and below, because a single process need not load it

    unfinished = path.with_name(UNFINISHED + path.name)
    writer = dcp.HuggingFaceStorageWriter(str(unfinished), save_distributed=True)
    try:
        dcp.save(tensors, storage_writer=writer, process_group=group)
    except dcp.api.CheckpointException as error:
        raise _write_error(path, error) from error
    own_files = {file.name: _size_and_checksum(file) for file in unfinished.glob(f"shard-{rank() + 1:05}-*")}
    files = {name: value for part in gather_values(own_files, group) for name, value in part.items()}
    message = None
    if is_main():
        try:
            _commit(unfinished, path, header | {"files": files})
        except CourseError as error:
            message = str(error)
    # All processes wait here, so that none reports the checkpoint as saved before it is.
    if message := next(filter(None, gather_values(message, group)), None):
        raise CourseError(message)


def _commit(unfinished: Path, path: Path, header: dict[str, Any]) -> None:
    """Write the header and give the folder its final name."""
    content = json.dumps({"training": header, "checksum": _header_checksum(header)})
    write_atomically(unfinished / HEADER, content.encode())
    with disk_errors(path):
        if path.exists():
            remove_sharded_checkpoints([path])
        os.replace(unfinished, path)


def _write_error(path: Path, error: Any) -> Exception:
    process, (cause, _) = next(iter(error.failures.items()))
    if not isinstance(cause, OSError):
        return RuntimeError(str(cause))
    return CourseError(
        f"cannot write {path}: {cause.strerror or cause} (process {process}). "
        "Files saved before are unchanged: free disk space or correct the permissions, then continue with RESUME=1"
    )


# ── Loading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def load_sharded_checkpoint(path: Path, state: TrainingState) -> None:
    """Bring `state`, freshly built, to the state that was saved in `path`, for any number of processes then and now.

    Random states are per process: a process whose rank the saving run did not have keeps its initial one.
    Raises DamagedCheckpoint and CourseError as `load_checkpoint` does, in every process alike.
    """
    header, saved = read_header(path), read_tensor_specs(path)
    check_settings(path, header["settings"], state.settings)
    tensors = {name: tensor.detach() for name, tensor in model_tensors(state).items()}
    check_fit(path, tensors, {name: spec for name, spec in saved.items() if name.startswith(("model.", "average."))})
    tensors |= _empty_optimizer_tensors(state.model, saved)
    own_random = f"random.{rank()}."
    tensors |= {
        name: torch.empty_like(spec, device="cpu") for name, spec in saved.items() if name.startswith(own_random)
    }

    _read_into(path, tensors)
    for optimizer in state.optimizers:
        restore_optimizer(optimizer, state.model, tensors)
    if rank() < len(header["random"]):
        restore_random_states(select_prefix(own_random, tensors), header["random"][rank()], state.device)
    state.step, state.seconds, state.sums = header["step"], header["seconds"], header["sums"]


def load_sharded_weights(model: nn.Module, path: Path, *, average: bool) -> nn.Module:
    """Copy the weights (with `average`, the averaged ones) from the folder `path` into `model` and return it."""
    read_header(path)
    saved = select_weights(path, read_tensor_specs(path), average)
    targets = module_tensors(model)
    check_fit(path, targets, saved)
    prefix = "average." if average else "model."
    _read_into(path, {prefix + name: tensor.detach() for name, tensor in targets.items()})
    return model


def read_header(path: Path) -> dict[str, Any]:
    """Return the content of training.json after verifying every file's checksum; each process verifies some of them.

    Raises DamagedCheckpoint in every process, and CourseError when there is no checkpoint.
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
        raise DamagedCheckpoint(f"{path} is damaged: these files are not as they were written: {', '.join(damaged)}")
    return header


def read_tensor_specs(path: Path) -> dict[str, Tensor]:
    """Return name, shape and type of every tensor in a checkpoint, as tensors on the meta device."""
    from torch.distributed import checkpoint as dcp

    entries: dict[str, Any] = dcp.HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    return {
        name: torch.empty(entry.size, dtype=entry.properties.dtype, device="meta") for name, entry in entries.items()
    }


def _empty_optimizer_tensors(model: nn.Module, saved: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors to read the optimizers' state into, sharded like the parameters that they belong to."""
    parameters, tensors = dict(model.named_parameters()), {}
    for name, spec in select_prefix("optimizer.", saved).items():
        parameter = parameters[name.rsplit(".", 1)[0]].detach()
        # A moment has the parameter's shape; a step count is one number.
        like = parameter if spec.shape == parameter.shape else spec.new_empty(spec.shape, device=parameter.device)
        tensors[f"optimizer.{name}"] = torch.zeros_like(like, dtype=spec.dtype)
    return tensors


def _read_into(path: Path, tensors: dict[str, Tensor]) -> None:
    from torch.distributed import checkpoint as dcp

    reader = dcp.HuggingFaceStorageReader(str(path))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # true for a single process
            dcp.load(tensors, storage_reader=reader, no_dist=world_size() == 1)
    except dcp.api.CheckpointException as error:
        cause = next(iter(error.failures.values()))[0]
        raise CourseError(f"cannot read {path}: {cause}") from error


def _size_and_checksum(file: Path) -> list[int]:
    checksum = 0
    with open(file, "rb") as content:
        while chunk := content.read(1 << 20):
            checksum = zlib.crc32(chunk, checksum)
    return [file.stat().st_size, checksum]


def _header_checksum(header: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(header, sort_keys=True).encode())
