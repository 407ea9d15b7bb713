"""Where a run is saved, and from where it goes on: one file for one process, a folder of shares for several.

Whichever form the newest checkpoint has, any number of processes can go on from it.
"""

import shutil
import sys
import threading
from pathlib import Path

from torch import distributed, nn

from shared.atomic import disk_errors
from shared.distributed import gather_values, is_main, world_size
from shared.errors import CourseError
from shared.training import checkpoint
from shared.training.checkpoint import DamagedCheckpoint, TrainingState, read_step
from shared.training.recovery import clear_folder, load_last_good, save_newest
from shared.training.sharded_checkpoint import (
    DAMAGED,
    HEADER,
    PREFIX,
    UNFINISHED,
    load_sharded,
    load_sharded_weights,
    read_header,
    remove_sharded,
    set_aside,
    sharded_checkpoints,
    staged,
    step_of,
    write_sharded,
)


class Saver:
    """Saves a run's state, again and again, into one folder.

    One process writes one file and waits for the disk. Several copy their shares and go on training while a thread in
    each writes: a checkpoint costs the copying only. The newest two are kept, in case the newest is damaged later.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.thread: threading.Thread | None = None
        self.failure: BaseException | None = None
        self.group = distributed.new_group(backend="gloo") if world_size() > 1 else None

    def save(self, state: TrainingState) -> None:
        """Save `state`; all processes call this alike. Raises CourseError when the disk refuses, now or the last time."""
        if self.group is None:
            save_newest(self.folder, state)
            return
        self.wait()
        tensors, header = staged(state)
        path = self.folder / f"{PREFIX}{state.step:08}"
        # A daemon: a process that has lost the others must be able to end, whatever its thread still waits for.
        self.thread = threading.Thread(target=self._write, args=(path, tensors, header), daemon=True)
        self.thread.start()

    def wait(self) -> None:
        """Return when what was to be saved is saved. Raises CourseError when it could not be."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        if self.failure is not None:
            raise self.failure

    def _write(self, path: Path, tensors: dict, header: dict) -> None:
        try:
            write_sharded(path, tensors, header, self.group)
            if is_main():
                remove_sharded(sharded_checkpoints(self.folder)[2:])
        except BaseException as error:  # raised again by wait(), in the thread that trains
            self.failure = error


def prepare_folder(folder: Path, resume: bool) -> None:
    """Make `folder` ready, as `clear_folder` does, once for all processes. Raises CourseError when the disk refuses."""
    if is_main():
        clear_folder(folder, resume)
        for unfinished in folder.glob(f"{UNFINISHED}*"):
            with disk_errors(unfinished):
                shutil.rmtree(unfinished)
        if not resume:
            remove_sharded([*sharded_checkpoints(folder), *folder.glob(f"{DAMAGED}{PREFIX}*")])
    gather_values(None)  # nobody looks before all is in order


def load_weights(model: nn.Module, path: Path, *, average: bool = False) -> nn.Module:
    """Put the weights of a run's checkpoint into `model` and return it; with `average`, the averaged ones.

    `path` is a checkpoint, of either form, or the folder of a run, of which it is the newest. Raises CourseError when it
    is damaged, naming one that is whole, or when it does not fit the model.
    """
    path = Path(path)
    if not (path / HEADER).exists():
        sharded = sharded_checkpoints(path)
        if not sharded or read_step(path / checkpoint.FILE_NAME) >= step_of(sharded[0]):
            return checkpoint.load_weights(model, path, average=average)
        path = sharded[0]
    try:
        return load_sharded_weights(model, path, average=average)
    except DamagedCheckpoint as damage:
        raise CourseError(f"{damage}; {_way_back(path)}") from damage


def load_newest(folder: Path, state: TrainingState) -> None:
    """Bring `state`, freshly built, to the newest whole checkpoint in `folder`; leave it alone where there is none.

    Says so when that is not the newest, and sets the damaged ones aside. Raises CourseError as loading does, and when
    there are checkpoints but none is whole.
    """
    candidates = [(step_of(path), path) for path in sharded_checkpoints(folder)]
    files = [folder / name for name in (checkpoint.FILE_NAME, checkpoint.PREVIOUS_NAME)]
    if any(file.exists() for file in files):
        # Where the newer of the two can't be read, the older one tells how far it had come at least.
        candidates.append((max(map(read_step, files)), files[0]))
    damaged: dict[Path, str] = {}
    for _, path in sorted(candidates, reverse=True):
        try:
            load_last_good(folder, state) if path == files[0] else load_sharded(path, state)
        except DamagedCheckpoint as error:
            damaged[path] = str(error)
            continue
        gather_values(None)  # all have looked at them
        if damaged and is_main():
            set_aside(damaged.keys() - {files[0]})
            told = "; ".join(damaged.values())
            print(f"warning: {told}; going on from {path.name}, step {state.step}", file=sys.stderr, flush=True)
        return
    if damaged:
        told = "; ".join(damaged.values())
        raise CourseError(f"{told}, and there is none before it to go back to; start without RESUME=1")


def _way_back(path: Path) -> str:
    """Say which older checkpoint lies beside the damaged one at `path`."""
    for older in sharded_checkpoints(path.parent):
        if older.name < path.name:
            try:
                step = read_header(older)["step"]
            except DamagedCheckpoint:
                continue
            return f"the one before it, {older}, is whole: load that (step {step}), or train on from it with RESUME=1"
    return "no other checkpoint that is whole lies beside it, so train again"
