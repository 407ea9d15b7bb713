"""One process at a time in a run's folder: two that write to one log and one checkpoint would ruin both."""

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from shared.atomic import disk_errors
from shared.errors import CourseError

_ours: set[Path] = set()  # folders that this process uses already


@contextlib.contextmanager
def exclusive_lock(folder: Path, patience: float = 1.0) -> Iterator[None]:
    """Within this context no other process gets the sole use of `folder`, which is made where it does not exist.

    The system keeps the lock, not a file: it ends with the process, however that ends. A process may nest it.
    Waits `patience` seconds for another process to finish (one whose parent was killed is still saving), then raises
    CourseError. Where a file system knows no locks, everybody is let in: a lock is a help and not a need.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    place = folder.resolve()
    if place in _ours:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if _busy(descriptor):
            _wait(descriptor, folder, patience)
        _ours.add(place)
        yield
    finally:
        _ours.discard(place)
        os.close(descriptor)


def in_use(folder: Path) -> bool:
    """Whether some process has the sole use of `folder` now."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return _busy(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _wait(descriptor: int, folder: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    if patience > 1.0:
        print(f"waiting for the process that is still at work in {folder}", file=sys.stderr, flush=True)
    while _busy(descriptor):
        if time.monotonic() >= deadline:
            raise CourseError(
                f"another process is at work in {folder}; let it finish, or stop it, or name another folder"
            )
        time.sleep(0.05)


def _busy(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks on this file system
        return False
    return False
