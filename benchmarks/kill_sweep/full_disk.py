"""Fills up the disk while a run saves: a small memory file system, where the machine allows to mount one.

Where it does not (macOS, restricted machines), the temporary file of a checkpoint fails instead, as on a full disk.
"""

import errno
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.kill_sweep.compare import find_differences
from benchmarks.kill_sweep.run import SETTINGS, train_small
from shared.errors import CourseError
from shared.training.checkpoint import FILE_NAME, read_checkpoint

COLUMNS = ("disk", "full in step", "message", "last good checkpoint", "with free space again", "as expected")
# The step in which the disk fills up, and the bytes that stay free: before the first checkpoint, before the first line
# of the log (later ones fit into its block), and in the middle of the run without space or with half of a checkpoint.
MOMENTS = ((1, 0), (4, 0), (26, 0), (26, 32_768))
MOUNT_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


def measure_full_disk() -> list[dict]:
    """Fill up the disk at several moments, in its own process; return a row under COLUMNS for each."""
    with tempfile.TemporaryDirectory() as folder:
        mount = _can_mount(Path(folder))
        command = [sys.executable, "-m", "benchmarks.kill_sweep.full_disk", folder, "mount" if mount else "fail"]
        command = [*MOUNT_NAMESPACE, *command] if mount else command
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        last_line = (result.stderr.strip().splitlines() or ["no message"])[-1]
        return [dict(zip(COLUMNS, ("–", "–", last_line, "–", "–", "NO"), strict=True))]
    return json.loads(result.stdout.splitlines()[-1])


def _can_mount(folder: Path) -> bool:
    try:
        command = [*MOUNT_NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _fill_and_continue(reference: Path, disk: Path, moment: tuple[int, int], mount: bool) -> dict:
    """Train on a disk that fills up, check what is left, free the space, continue, and compare with `reference`."""
    step_when_full, free_bytes = moment
    disk.mkdir()
    if mount:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    fill, free_space = (_filler(disk, free_bytes), (disk / "filler").unlink) if mount else _failing_file()
    try:
        train_small(disk / "run", resume=False, actions={step_when_full: fill})
        message = "none: the run continued"
    except CourseError as error:
        message = str(error)
    newest = disk / "run" / FILE_NAME
    step = read_checkpoint(newest)[1]["step"] if newest.exists() else 0
    partial_files = [path.name for path in (disk / "run").glob("*.part")]
    free_space()
    train_small(disk / "run", resume=True)
    differences = find_differences(disk / "run", reference)
    expected_step = (step_when_full - 1) // SETTINGS.checkpoint_every * SETTINGS.checkpoint_every
    is_clear = "No space left on device" in message and "\n" not in message
    as_expected = is_clear and step == expected_step and not partial_files and not differences
    cells = (
        f"a memory file system of 1 MB, with {free_bytes // 1024} kB left" if mount else "a file that fails",
        str(step_when_full),
        message.replace(str(disk), "…"),
        (f"step {step}, intact" if step else "none yet")
        + (f"; partial files: {partial_files}" if partial_files else ""),
        "; ".join(differences) or "bit-identical end, complete metrics",
        "yes" if as_expected else "NO",
    )
    return dict(zip(COLUMNS, cells, strict=True))


def _filler(disk: Path, free_bytes: int) -> Callable[[], None]:
    """Return a function that fills `disk` up to `free_bytes`."""

    def fill() -> None:
        with open(disk / "filler", "wb", buffering=0) as filler:
            try:
                while filler.write(bytes(4096)):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            filler.truncate(filler.tell() - free_bytes)

    return fill


def _failing_file() -> tuple[Callable[[], None], Callable[[], None]]:
    """Return a function that makes writing a checkpoint's temporary file fail, and one that ends that."""
    path_open = Path.open

    def open_on_full_disk(path, mode="r", *arguments, **options):
        if mode == "wb" and path.name.startswith(FILE_NAME):
            raise OSError(errno.ENOSPC, "No space left on device")
        return path_open(path, mode, *arguments, **options)

    def fill() -> None:
        Path.open = open_on_full_disk

    def free_space() -> None:
        Path.open = path_open

    return fill, free_space


def main(folder: Path, mount: bool) -> None:
    reference = folder / "reference"
    train_small(reference, resume=False)
    rows = [_fill_and_continue(reference, folder / f"disk-{i}", moment, mount) for i, moment in enumerate(MOMENTS)]
    print(json.dumps(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "mount")
