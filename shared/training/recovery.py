"""Finds the checkpoint to continue from: the newest intact one, whichever format it has.

A save is atomic, but disks also damage files that were intact: a bad block, a copy that was cut, a power failure below
a file system that promised too much. Therefore a run keeps two checkpoints, and says so when it uses the older one.
Any number of processes can continue from either format.
"""

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from torch import nn

from shared.atomic import disk_errors, remove_partial_files
from shared.distributed import gather_values, is_main
from shared.errors import CourseError
from shared.training.checkpoint import (
    FILE_NAME,
    PREVIOUS_NAME,
    load_checkpoint,
    load_checkpoint_weights,
    read_checkpoint,
    read_step,
)
from shared.training.sharded_checkpoint import (
    DAMAGED,
    HEADER,
    PREFIX,
    UNFINISHED,
    list_sharded_checkpoints,
    load_sharded_checkpoint,
    load_sharded_weights,
    read_header,
    remove_sharded_checkpoints,
    set_aside_sharded_checkpoints,
    step_of,
)
from shared.training.training_state import DamagedCheckpoint, ForeignCheckpoint, TrainingState

DAMAGED_NAME = "damaged-checkpoint.safetensors"


def prepare_folder(folder: Path, resume: bool) -> None:
    """Create `folder`, remove what a killed process left unfinished and, unless `resume`, an older run's files.

    A run that starts from the beginning must not leave an older run's checkpoint for a later `resume` to find.
    The main process does the work and the others wait for it. Raises CourseError when the disk refuses.
    """
    if is_main():
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            remove_partial_files(folder)
            for unfinished in folder.glob(f"{UNFINISHED}*"):
                shutil.rmtree(unfinished)
            if not resume:
                for name in (FILE_NAME, PREVIOUS_NAME, DAMAGED_NAME, "metrics.jsonl"):
                    (folder / name).unlink(missing_ok=True)
        if not resume:
            remove_sharded_checkpoints([*list_sharded_checkpoints(folder), *folder.glob(f"{DAMAGED}{PREFIX}*")])
    gather_values(None)  # a barrier


def load_newest(folder: Path, state: TrainingState) -> None:
    """Bring `state`, freshly built, to the newest intact checkpoint in `folder`; do nothing when there is none.

    Damaged checkpoints that are newer are renamed and named in a warning. The steps after the intact one are taken
    again and reach the same weights.

    Raises CourseError when the newest checkpoint belongs to another run or model, because falling back would hide a
    mistake in the command, and when there are checkpoints but none is intact.
    """
    damaged: dict[Path, str] = {}
    for path in _newest_first(folder):
        try:
            if path.is_dir() and path.name not in (FILE_NAME, PREVIOUS_NAME):
                load_sharded_checkpoint(path, state)
            else:
                load_checkpoint(path, state)
        except DamagedCheckpoint as error:
            damaged[path] = str(error)
            continue
        except ForeignCheckpoint as error:
            has_previous = path.name != PREVIOUS_NAME and (folder / PREVIOUS_NAME).exists()
            outcome = f"continues from {PREVIOUS_NAME}" if has_previous else "starts from the beginning"
            raise CourseError(f"{error}; move it elsewhere, and RESUME=1 {outcome}") from error
        if path.name == PREVIOUS_NAME and not (folder / FILE_NAME).exists():
            damaged[folder / FILE_NAME] = f"{folder / FILE_NAME} is missing"
        gather_values(None)  # a barrier: all processes have read the damaged ones
        if damaged and is_main():
            messages = _set_aside(damaged)
            print(f"warning: {messages}; continuing from {path.name}, step {state.step}", file=sys.stderr, flush=True)
        return
    if damaged:
        raise CourseError(
            f"{'; '.join(damaged.values())}; no intact checkpoint is left: remove the folder {folder}, and the same "
            "command with RESUME=1 trains only what was in it again"
        )


def load_weights(model: nn.Module, path: Path, *, average: bool = False) -> nn.Module:
    """Copy the weights of a run's checkpoint (with `average`, the averaged ones) into `model` and return it.

    `path` is a checkpoint of either format, or a run's folder, whose newest checkpoint is read.
    Raises CourseError when it does not fit the model, or is damaged. A damaged one is not replaced by an older one,
    which has other weights, but the message names an older one that is intact.
    """
    path = Path(path)
    if path.is_dir() and not (path / HEADER).exists():
        sharded = list_sharded_checkpoints(path)
        file = path / FILE_NAME
        path = sharded[0] if sharded and read_step(file) < step_of(sharded[0]) else file
    try:
        load = load_sharded_weights if path.is_dir() else load_checkpoint_weights
        return load(model, path, average=average)
    except DamagedCheckpoint as error:
        raise CourseError(f"{error}; {_suggest_older(path)}") from error


def _newest_first(folder: Path) -> list[Path]:
    """Return all checkpoints of a run, of both formats."""
    newest, previous = folder / FILE_NAME, folder / PREVIOUS_NAME
    candidates = [(step_of(path), 0, path) for path in list_sharded_checkpoints(folder)]
    if previous.exists():
        candidates.append((read_step(previous), 1, previous))
    if newest.exists():
        # When the newest cannot be read, it is at least as new as the previous one.
        candidates.append((max(read_step(newest), read_step(previous)), 2, newest))
    return [path for _, _, path in sorted(candidates, reverse=True)]


def _set_aside(damaged: dict[Path, str]) -> str:
    """Rename damaged checkpoints and return their messages as one."""
    files = {path for path in damaged if path.name == FILE_NAME and path.exists()}
    set_aside_sharded_checkpoints(path for path in damaged if path.name not in (FILE_NAME, PREVIOUS_NAME))
    for path in files:
        with disk_errors(path.parent):
            os.replace(path, path.with_name(DAMAGED_NAME))
    return "; ".join(
        f"{damaged[path]} (renamed to {DAMAGED_NAME})" if path in files else damaged[path] for path in damaged
    )


def _suggest_older(path: Path) -> str:
    """Return what to do about a damaged checkpoint: use an intact older one beside it, or train again."""
    for older in _older_than(path):
        try:
            step = (read_header(older) if older.is_dir() else read_checkpoint(older)[1])["step"]
        except CourseError:
            continue
        return f"the one before it, {older}, is intact: load that (step {step}), or continue from it with RESUME=1"
    return "no intact checkpoint lies beside it, so train again"


def _older_than(path: Path) -> Iterable[Path]:
    if path.is_dir():
        return [older for older in list_sharded_checkpoints(path.parent) if older.name < path.name]
    return [path.with_name(PREVIOUS_NAME)]
