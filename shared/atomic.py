"""Writing a file so that it is there whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from shared.errors import CourseError

PARTIAL_SUFFIX = ".part"


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk may answer (full, read-only, gone) into one line for a person."""
    try:
        yield
    except OSError as error:
        raise CourseError(
            f"cannot write {path}: {error.strerror or error}. "
            "What was saved before is untouched: make room or set the permissions right, then go on with RESUME=1"
        ) from error


def write_atomically(path: Path, content: bytes, *, backup: Path | None = None) -> None:
    """Write `content` to a temporary name, make sure that it is on the disk, and only then rename it to `path`.

    Whatever happens at whatever moment, `path` holds either the old content or the new one. With `backup`
    the old content goes on under that name; between the two renames, and only there, it lies there alone.
    Raises CourseError when the disk refuses; the temporary file is then removed. (A process that is killed leaves it:
    `remove_partial_files` is for those.)
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if backup is not None and path.exists():
                os.replace(path, backup)
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def remove_partial_files(folder: Path) -> None:
    """Remove what a process that was killed in the midst of writing has left in `folder`."""
    for temporary in folder.glob(f"*{PARTIAL_SUFFIX}"):
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # The rename itself is an entry in the folder, and must reach the disk as well to survive a power cut.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
