"""A lock on a run's folder: two processes that write to one log and one checkpoint would corrupt both."""

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from shared.atomic import disk_errors
from shared.errors import CourseError

_held: set[Path] = set()  # folders that this process has locked


@contextlib.contextmanager
def exclusive_lock(folder: Path, patience: float = 1.0) -> Iterator[None]:
    """Lock `folder` against other processes within this context; create it if it does not exist.

    The operating system holds the lock, so it ends with the process, however the process ends. A process may nest it.
    Waits `patience` seconds for another process, which may still be saving, then raises CourseError. On a file system
    without locks, nothing is locked.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    resolved = folder.resolve()
    if resolved in _held:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not _try_lock(descriptor):
            _wait(descriptor, folder, patience)
        _held.add(resolved)
        yield
    finally:
        _held.discard(resolved)
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock on `folder` now."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _wait(descriptor: int, folder: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    if patience > 1.0:
        print(f"waiting for the process that is still running in {folder}", file=sys.stderr, flush=True)
    while not _try_lock(descriptor):
        if time.monotonic() >= deadline:
            raise CourseError(
                f"another process is running in {folder}; wait until it has finished, stop it, or use another folder"
            )
        time.sleep(0.05)


def _try_lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system has no locks
        return True
    return True
