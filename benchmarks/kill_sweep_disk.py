"""A disk that fills up while a run saves: a small memory file system where the machine lets us mount one.

Where it does not (macOS, a machine that forbids it), the temporary file of a checkpoint refuses instead, as a full disk
would. Part of benchmarks/kill_sweep.py.
"""

import builtins
import errno
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.kill_sweep_child import SETTINGS, go
from benchmarks.kill_sweep_compare import differences
from shared.errors import CourseError
from shared.training.checkpoint import FILE_NAME, read_checkpoint

COLUMNS = ("the disk", "full in step", "it says", "last good checkpoint", "then, with room", "as it should be")
# The step in which the disk fills up, and the bytes that are left: before there is any checkpoint, before the log's first
# line (its later ones fit into a block that it has), and in the midst of the run with no room or with half of what it takes.
MOMENTS = ((1, 0), (4, 0), (26, 0), (26, 32_768))
OWN_MOUNTS = ("unshare", "--user", "--map-root-user", "--mount")


def outcomes() -> list[dict]:
    """Fill the disk up at several moments, in a process of its own; return a row under COLUMNS for each."""
    with tempfile.TemporaryDirectory() as place:
        mounts = can_mount(Path(place))
        command = [sys.executable, "-m", "benchmarks.kill_sweep_disk", place, "mount" if mounts else "refuse"]
        done = subprocess.run(
            [*OWN_MOUNTS, *command] if mounts else command, capture_output=True, text=True, check=False
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        return [dict(zip(COLUMNS, ("–", "–", last, "–", "–", "NO"), strict=True))]
    return json.loads(done.stdout.splitlines()[-1])


def can_mount(place: Path) -> bool:
    try:
        command = [*OWN_MOUNTS, "mount", "-t", "tmpfs", "tmpfs", str(place)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def fill_and_go_on(whole: Path, disk: Path, full_in: int, room: int, mount: bool) -> dict:
    """Train on a disk that fills up, look at what is left, make room, go on, and compare with a run that had room."""
    disk.mkdir()
    if mount:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    fill, make_room = (fill_up(disk, room), (disk / "filler").unlink) if mount else refusing_file()
    try:
        go(disk / "run", resume=False, at_step={full_in: fill})
        message = "nothing: the run went on"
    except CourseError as error:
        message = str(error)
    newest = disk / "run" / FILE_NAME
    step = read_checkpoint(newest)[1]["step"] if newest.exists() else 0
    left = [path.name for path in (disk / "run").glob("*.part")]
    make_room()
    go(disk / "run", resume=True)
    lost = differences(disk / "run", whole)
    wanted = (full_in - 1) // SETTINGS.checkpoint_every * SETTINGS.checkpoint_every
    well = "No space left on device" in message and "\n" not in message and step == wanted and not left and not lost
    cells = (
        f"a memory file system of 1 MB, with {room // 1024} kB left" if mount else "a file that refuses",
        str(full_in),
        message.replace(str(disk), "…"),
        (f"step {step}, whole" if step else "none yet") + (f"; half written: {left}" if left else ""),
        "; ".join(lost) or "bit-identical end, unbroken metrics",
        "yes" if well else "NO",
    )
    return dict(zip(COLUMNS, cells, strict=True))


def main(place: Path, mount: bool) -> None:
    whole = place / "whole"
    go(whole, resume=False)
    rows = [fill_and_go_on(whole, place / f"disk-{i}", *moment, mount) for i, moment in enumerate(MOMENTS)]
    print(json.dumps(rows))


def fill_up(disk: Path, room: int) -> Callable[[], None]:
    """Return what fills `disk`, but for `room` bytes."""

    def fill() -> None:
        with open(disk / "filler", "wb", buffering=0) as filler:
            try:
                while filler.write(bytes(4096)):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            filler.truncate(filler.tell() - room)

    return fill


def refusing_file() -> tuple[Callable[[], None], Callable[[], None]]:
    """Return what makes a checkpoint's temporary file refuse to be written, and what ends that."""
    really_open = builtins.open

    def full_open(file, mode="r", *options, **more):
        if mode == "wb" and Path(file).name.startswith(FILE_NAME):
            raise OSError(errno.ENOSPC, "No space left on device")
        return really_open(file, mode, *options, **more)

    def fill() -> None:
        builtins.open = full_open

    def make_room() -> None:
        builtins.open = really_open

    return fill, make_room


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "mount")
