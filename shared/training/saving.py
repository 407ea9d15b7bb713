"""Saves a run's checkpoints: one file for a single process, a folder of shards for several."""

import threading
from pathlib import Path

from torch import distributed

from shared.distributed import is_main, world_size
from shared.training.checkpoint import FILE_NAME, PREVIOUS_NAME, save_checkpoint
from shared.training.sharded_checkpoint import (
    list_sharded_checkpoints,
    remove_sharded_checkpoints,
    sharded_path,
    stage_state,
    write_sharded_checkpoint,
)
from shared.training.training_state import TrainingState


class Saver:
    """Save a run's state to one folder, and keep the newest two checkpoints in case the newest is damaged later.

    A single process writes one file and waits for the disk. Several processes copy their shards and continue training
    while a thread in each of them writes: a checkpoint then costs only the copy.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.thread: threading.Thread | None = None
        self.failure: BaseException | None = None
        self.group = distributed.new_group(backend="gloo") if world_size() > 1 else None

    def save(self, state: TrainingState) -> None:
        """Save `state`; all processes must call this. Raises CourseError when this or the last save failed."""
        if self.group is None:
            save_checkpoint(self.folder / FILE_NAME, state, backup=self.folder / PREVIOUS_NAME)
            return
        self.wait()
        tensors, header = stage_state(state)
        path = sharded_path(self.folder, state.step)
        # A daemon thread, so that a process that has lost the others can end while its thread still waits for them.
        # (The thread pool of DCP's async_save would keep it alive, and could not commit the header afterwards.)
        self.thread = threading.Thread(target=self._write, args=(path, tensors, header), daemon=True)
        self.thread.start()

    def wait(self) -> None:
        """Wait until everything is saved. Raises CourseError when it could not be."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        if self.failure is not None:
            raise self.failure

    def _write(self, path: Path, tensors: dict, header: dict) -> None:
        try:
            write_sharded_checkpoint(path, tensors, header, self.group)
            if is_main():
                remove_sharded_checkpoints(list_sharded_checkpoints(self.folder)[2:])
        except BaseException as error:  # raised again by wait(), in the thread that trains
            self.failure = error
