"""Going on from the newest checkpoint that is whole, and saying so when that is not the newest.

A checkpoint is written whole or not at all, but disks also damage files that were once whole: a bad block, a copy
that was cut, a power cut below a file system that promised too much. So a run keeps two, the newest and the one before it.
"""

import os
import sys
from pathlib import Path

from shared.atomic import disk_errors, remove_partial_files
from shared.distributed import gather_values, is_main
from shared.errors import CourseError
from shared.training.checkpoint import (
    FILE_NAME,
    PREVIOUS_NAME,
    DamagedCheckpoint,
    ForeignCheckpoint,
    TrainingState,
    load_checkpoint,
    save_checkpoint,
)

DAMAGED_NAME = "damaged-checkpoint.safetensors"


def clear_folder(folder: Path, resume: bool) -> None:
    """Make `folder` ready: without what a killed process left half written and, unless `resume`, without an older run.

    A run that starts afresh must not leave an older run's checkpoint for a later `resume` to find.
    Raises CourseError when the disk refuses.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_partial_files(folder)
        if not resume:
            for name in (FILE_NAME, PREVIOUS_NAME, DAMAGED_NAME, "metrics.jsonl"):
                (folder / name).unlink(missing_ok=True)


def save_newest(folder: Path, state: TrainingState) -> None:
    """Save `state` as the folder's newest checkpoint and keep the one before it. Raises CourseError as saving does."""
    save_checkpoint(folder / FILE_NAME, state, backup=folder / PREVIOUS_NAME)


def load_last_good(folder: Path, state: TrainingState) -> None:
    """Bring `state`, freshly built, to the newest whole checkpoint in `folder`; leave it alone where there is none.

    When the newest is damaged or missing and the one before it is whole, the run goes on from that, and says so: the
    steps between the two are done again, to the very same weights. The damaged file is set aside, not removed.

    Raises DamagedCheckpoint when there are checkpoints but none is whole, and CourseError when the newest is another run's
    or another model's: that is a mistake in the command, and going back would hide it.
    """
    newest, previous = folder / FILE_NAME, folder / PREVIOUS_NAME
    if newest.exists():
        try:
            return load_checkpoint(newest, state)
        except DamagedCheckpoint as error:
            damage = str(error)
        except ForeignCheckpoint as error:
            then = f"goes on from {PREVIOUS_NAME}" if previous.exists() else "starts from the beginning"
            raise CourseError(f"{error}; move it elsewhere, and RESUME=1 {then}") from error
    elif previous.exists():
        damage = f"{newest} is missing"
    else:
        return None
    try:
        load_checkpoint(previous, state)
    except CourseError as error:
        raise DamagedCheckpoint(f"{damage}; {error}" if previous.exists() else damage) from error
    gather_values(None)  # all have looked at it
    if is_main():
        with disk_errors(folder):
            if newest.exists():
                os.replace(newest, folder / DAMAGED_NAME)
                damage += f" (set aside as {DAMAGED_NAME})"
        print(f"warning: {damage}; going on from {previous.name}, step {state.step}", file=sys.stderr, flush=True)
    return None
