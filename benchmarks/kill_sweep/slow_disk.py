"""A disk made slow, so that a kill can hit a checkpoint's writing, and a process that dies at a chosen point of it."""

import os
import signal
import time
from collections import Counter
from pathlib import Path

from shared.training.checkpoint import FILE_NAME

POINTS = (
    "the temporary file is open and empty",
    "half of it is written",
    "all is written, not synced",
    "it is synced, not renamed",
    "between the two renames",
    "both renames are done, not synced",
)


class SlowDisk:
    """Slow down the writing of checkpoints in this process, and kill the process at the point `die_at`.

    die_at  (one of POINTS, n): in the n-th checkpoint that this process writes
    """

    def __init__(self, seconds_per_write: float, die_at: tuple[str, int] | None):
        self.seconds_per_write, self.die_at = seconds_per_write, die_at
        self.writing = False  # between opening the temporary file and the rename that ends the writing
        self.reached: Counter[str] = Counter()

    def install(self) -> None:
        """Replace the system calls that write a checkpoint."""
        path_open, fsync, replace = Path.open, os.fsync, os.replace

        def slow_open(path, mode="r", *arguments, **options):
            file = path_open(path, mode, *arguments, **options)
            if mode == "wb" and path.name.startswith(FILE_NAME):
                self.writing = True
                self.reach("the temporary file is open and empty")
                return SlowFile(file, self)
            return file

        def fsync_at_points(descriptor: int) -> None:
            if self.writing:
                self.reach("all is written, not synced")
            fsync(descriptor)
            if self.writing:
                self.reach("it is synced, not renamed")

        def replace_at_points(old, new) -> None:
            replace(old, new)
            if Path(old).name == FILE_NAME:
                self.reach("between the two renames")
            elif Path(new).name == FILE_NAME:
                self.reach("both renames are done, not synced")
                self.writing = False

        Path.open, os.fsync, os.replace = slow_open, fsync_at_points, replace_at_points

    def reach(self, point: str) -> None:
        """Kill this process if it should die here."""
        self.reached[point] += 1
        if self.die_at == (point, self.reached[point]):
            os.kill(os.getpid(), signal.SIGKILL)


class SlowFile:
    """A file that writes its content in pieces, with pauses between them."""

    PIECES = 10

    def __init__(self, file, disk: SlowDisk):
        self.file, self.disk = file, disk

    def __enter__(self) -> "SlowFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, content: bytes) -> int:
        size = -(-len(content) // self.PIECES)
        for piece in range(self.PIECES):
            if piece == self.PIECES // 2:
                self.disk.reach("half of it is written")
            self.file.write(content[piece * size : (piece + 1) * size])
            self.file.flush()
            time.sleep(self.disk.seconds_per_write / self.PIECES)
        return len(content)
