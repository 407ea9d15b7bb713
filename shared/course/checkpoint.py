"""`make checkpoint-N`: train what later lessons start from, and keep it in `data/checkpoints` with its provenance.

A lesson that others build on says so in a file `checkpoint.py`, which exports a CHECKPOINT; so does an app whose
model is trained from lessons' checkpoints, under the number of the lesson that its checkpoint is named after. Checkpoints form a chain: each
provenance names the hashes of its parents, so that one can tell when a child was made from a parent that is no more.

    python -m shared.course.checkpoint 0        # make lesson 0's again
    python -m shared.course.checkpoint --all    # all of them, parents first
"""

import argparse
import hashlib
import importlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from shared.cli import command_line
from shared.course.lesson import ROOT
from shared.course.machine import describe_machine
from shared.errors import CourseError

CHECKPOINTS_FOLDER = ROOT / "data" / "checkpoints"
PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a lesson leaves for others."""

    name: str
    """Its folder in `data/checkpoints`."""
    about: str
    """What it is and who uses it, in a sentence."""
    make: Callable[[Path], Mapping[str, float | int | str]]
    """Trains, writes the files into the folder it is given, and returns what it has measured."""
    world: str
    """The version of the toy world that it has learned from, with its list of held-out combinations."""
    parents: Sequence[str] = ()
    """Names of the checkpoints that it is made from."""


def checkpoints() -> dict[int, Checkpoint]:
    """Return every checkpoint by its lesson's number, parents before children: lessons build on earlier ones."""
    files = [*(ROOT / "lessons").glob("lesson_*/**/checkpoint.py"), *(ROOT / "apps").glob("*/checkpoint.py")]
    modules = [importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts)) for file in files]
    found = {int(module.CHECKPOINT.name.split("_")[1]): module.CHECKPOINT for module in modules}
    return dict(sorted(found.items()))


def make(number: int) -> Path:
    """Train lesson `number`'s checkpoint and put it in place once it is whole. Raises CourseError where there is none."""
    known = checkpoints()
    if number not in known:
        raise CourseError(f"lesson {number} keeps no checkpoint; lessons that do: {', '.join(map(str, known))}")
    checkpoint, started = known[number], time.monotonic()
    if missing := [parent for parent in checkpoint.parents if not (CHECKPOINTS_FOLDER / parent / PROVENANCE).exists()]:
        raise CourseError(f"{checkpoint.name} is made from {', '.join(missing)}: make that first (make checkpoints)")
    CHECKPOINTS_FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CHECKPOINTS_FOLDER, prefix=".making-") as making:
        folder = Path(making) / checkpoint.name
        folder.mkdir()
        measured = checkpoint.make(folder)
        record = {
            "about": checkpoint.about,
            "made by": f"make checkpoint-{number}",
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "seconds": round(time.monotonic() - started),
            "machine": describe_machine("cpu"),
            "toy world": checkpoint.world,
            "parents": {parent: hash_of(CHECKPOINTS_FOLDER / parent) for parent in checkpoint.parents},
            "measured": dict(measured),
            "files": hashes_of(folder),
        }
        (folder / PROVENANCE).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        place = CHECKPOINTS_FOLDER / checkpoint.name
        if place.exists():
            place.rename(Path(making) / "before")
        shutil.move(folder, place)
    return place


def checkpoint_folder(name: str, lesson: int) -> Path:
    """Return the folder of a shipped checkpoint. Raises CourseError when it is missing, naming the command that makes it."""
    folder = CHECKPOINTS_FOLDER / name
    if not (folder / PROVENANCE).exists():
        raise CourseError(f"{folder} does not exist; make it with `make checkpoint-{lesson}`")
    return folder


def hashes_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of a checkpoint but its provenance, by name."""
    files = (path for path in sorted(folder.iterdir()) if path.name != PROVENANCE)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def hash_of(folder: Path) -> str:
    """One hash for a whole checkpoint: of the hashes of its files."""
    return hashlib.sha256(json.dumps(hashes_of(folder), sort_keys=True).encode()).hexdigest()


def checkpoint_errors(known: Iterable[Checkpoint], place: Path = CHECKPOINTS_FOLDER) -> list[str]:
    """What is wrong with the checkpoints in a folder: missing, changed by hand, or made from what is no more."""
    found = []
    for checkpoint in known:
        folder = place / checkpoint.name
        if not (folder / PROVENANCE).exists():
            found.append(f"{checkpoint.name} is missing")
            continue
        record = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
        if record["files"] != hashes_of(folder):
            found.append(f"{checkpoint.name}: its files are not those that its provenance names")
        if record["toy world"] != checkpoint.world:
            found.append(f"{checkpoint.name} was made in toy world {record['toy world']}; now it is {checkpoint.world}")
        if set(record["parents"]) != set(checkpoint.parents):
            found.append(f"{checkpoint.name} was made from other parents than its lesson names")
        for parent, before in record["parents"].items():
            if not (place / parent).exists() or hash_of(place / parent) != before:
                found.append(f"{checkpoint.name} was made from a {parent} that has changed since")
    return found


@command_line()
def main() -> None:
    parser = argparse.ArgumentParser(description="Train the checkpoints that later lessons start from.")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("lesson", type=int, nargs="?", help="the lesson's number")
    group.add_argument("--all", action="store_true", help="every checkpoint, parents first")
    options = parser.parse_args()
    for number in checkpoints() if options.all else [options.lesson]:
        folder = make(number)
        record = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
        for name, value in record["measured"].items():
            print(f"  {name}: {value}")
        print(f"{record['seconds']} s; {folder.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
