"""Atomic file writing: a file has its old content or its new content, whenever the process is killed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from shared.errors import CourseError

PARTIAL_SUFFIX = ".part"


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError raised inside (disk full, read-only, removed) into a CourseError of one line."""
    try:
        yield
    except OSError as error:
        raise CourseError(
            f"cannot write {path}: {error.strerror or error}. Files saved before are unchanged: "
            "free disk space or correct the permissions, then continue with RESUME=1"
        ) from error


@contextlib.contextmanager
def atomic_file(path: Path, *, backup: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path to write to; when the block ends, flush it to the disk and rename it to `path`.

    With `backup`, the old file is renamed to it first; between the two renames only the backup exists.
    The new file has the permissions of any newly created file, whatever the writer has set.
    The temporary file is removed when the block fails; a killed process leaves it (see `remove_partial_files`).

    Raises CourseError for every OSError inside.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            if backup is not None and path.exists():
                os.replace(path, backup)
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes, *, backup: Path | None = None) -> None:
    """Write `content` to `path` through `atomic_file`. Raises CourseError as that does."""
    with atomic_file(path, backup=backup) as temporary:
        temporary.write_bytes(content)


def remove_partial_files(folder: Path) -> None:
    """Remove the temporary files that a killed process has left in `folder`."""
    for temporary in folder.glob(f"*{PARTIAL_SUFFIX}"):
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # The rename is an entry in the folder and must reach the disk as well, to survive a power failure.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
