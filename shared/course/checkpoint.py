"""Train the checkpoints that later lessons start from, and keep them in `data/checkpoints` with their provenance.

A lesson that others build on has a file `experiment/checkpoint.py`, which exports a CHECKPOINT. An app whose model is
trained from lessons' checkpoints has one too; the checkpoint's name gives the lesson that it belongs to. The judge of
generated images belongs to no lesson and is called by its name. Checkpoints form a chain: each provenance names the
hashes of its parents, so that a checkpoint of an outdated parent is noticed.

    python -m shared.course.checkpoint 0        # train lesson 0's checkpoint again (make checkpoint-0)
    python -m shared.course.checkpoint judge    # train the judge again (make checkpoint-judge)
    python -m shared.course.checkpoint --all    # train all checkpoints, parents first (make checkpoints)
"""

import argparse
import hashlib
import importlib
import json
import re
import shutil
import sys
import tempfile
import time
import tomllib
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
STALE_LIST = CHECKPOINTS_FOLDER / "stale.toml"


@dataclass(frozen=True)
class Checkpoint:
    """A trained model that a lesson keeps for later lessons.

    name             its folder in `data/checkpoints`
    description      what it is and which lessons use it, in one sentence
    train            trains, writes files into the given folder and returns measurements for the provenance
    toybox_version   the version of the toy world that it was trained on, which includes the held-out combinations
    parents          names of the checkpoints that its training starts from
    """

    name: str
    description: str
    train: Callable[[Path], Mapping[str, float | int | str]]
    toybox_version: str
    parents: Sequence[str] = ()


def checkpoints() -> dict[str, Checkpoint]:
    """Return every checkpoint by its target in `make checkpoint-…`, parents before children.

    Lessons build on earlier ones, so they are in the order of their numbers. The judge comes last; it has no children.
    """
    files = [
        *(ROOT / "lessons").glob("lesson_*/**/checkpoint.py"),
        *(ROOT / "apps").glob("*/checkpoint.py"),
        ROOT / "shared" / "judge" / "checkpoint.py",
    ]
    modules = [importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts)) for file in files]
    by_target = {checkpoint_target(module.CHECKPOINT.name): module.CHECKPOINT for module in modules}
    return dict(sorted(by_target.items(), key=lambda item: (not item[0].isdigit(), item[0].zfill(3))))


def checkpoint_target(name: str) -> str:
    """Return the target in `make checkpoint-…` of a checkpoint: "0" for "lesson_00_decoder", else its name."""
    lesson = re.match(r"lesson_(\d+)_", name)
    return str(int(lesson[1])) if lesson else name


def train_checkpoint(target: str) -> Path:
    """Train a checkpoint by its target and return its folder, which is replaced only when training succeeded.

    Raises CourseError when there is no such checkpoint or a parent is missing.
    """
    available = checkpoints()
    if target not in available:
        raise CourseError(f"there is no checkpoint {target!r}; choose one of {', '.join(available)}")
    checkpoint, started = available[target], time.monotonic()
    if missing := [name for name in checkpoint.parents if not (CHECKPOINTS_FOLDER / name / PROVENANCE).exists()]:
        raise CourseError(f"{checkpoint.name} starts from {', '.join(missing)}: train that first (make checkpoints)")
    CHECKPOINTS_FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CHECKPOINTS_FOLDER, prefix=".training-") as temporary:
        folder = Path(temporary) / checkpoint.name
        folder.mkdir()
        measured = checkpoint.train(folder)
        record = {
            "about": checkpoint.description,
            "made by": f"make checkpoint-{target}",
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "seconds": round(time.monotonic() - started),
            "machine": describe_machine("cpu"),
            "toy world": checkpoint.toybox_version,
            "parents": {name: checkpoint_hash(CHECKPOINTS_FOLDER / name) for name in checkpoint.parents},
            "measured": dict(measured),
            "files": file_hashes(folder),
        }
        (folder / PROVENANCE).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        final_folder = CHECKPOINTS_FOLDER / checkpoint.name
        if final_folder.exists():
            final_folder.rename(Path(temporary) / "previous")
        shutil.move(folder, final_folder)
    return final_folder


def checkpoint_folder(name: str) -> Path:
    """Return the folder of a shipped checkpoint. Raises CourseError when it is missing, with the command to run."""
    folder = CHECKPOINTS_FOLDER / name
    if not (folder / PROVENANCE).exists():
        raise CourseError(f"{folder} does not exist; make it with `make checkpoint-{checkpoint_target(name)}`")
    return folder


def stale_list() -> dict:
    """Return the checkpoints and results that were made with an earlier version of the toy world."""
    return tomllib.loads(STALE_LIST.read_text(encoding="utf-8"))


def is_stale(name: str) -> bool:
    """Return whether a checkpoint is listed as made with an earlier version of the toy world."""
    return name in stale_list()["checkpoints"]


def stale_version(number: int, part: str | None, preset: str | None = None) -> str | None:
    """Return the earlier version of the toy world that results were measured with; None for current results."""
    stale = stale_list()
    names = {str(number), f"{number}/{part}", f"{number}:{preset}"}
    return stale["toybox_version"] if names & set(stale["results"]) else None


def file_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a checkpoint except its provenance, by file name."""
    files = (path for path in sorted(folder.iterdir()) if path.name != PROVENANCE)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def checkpoint_hash(folder: Path) -> str:
    """Return one hash for a checkpoint: the SHA-256 of its files' hashes."""
    return hashlib.sha256(json.dumps(file_hashes(folder), sort_keys=True).encode()).hexdigest()


def checkpoint_errors(expected: Iterable[Checkpoint], folder: Path = CHECKPOINTS_FOLDER) -> list[str]:
    """List what is wrong with the checkpoints in a folder: missing, modified, or trained from an outdated parent."""
    errors = []
    for checkpoint in expected:
        place = folder / checkpoint.name
        if not (place / PROVENANCE).exists():
            errors.append(f"{checkpoint.name} is missing")
            continue
        record = json.loads((place / PROVENANCE).read_text(encoding="utf-8"))
        if record["files"] != file_hashes(place):
            errors.append(f"{checkpoint.name}: its files differ from the hashes in its provenance")
        if record["toy world"] != checkpoint.toybox_version:
            before, now = record["toy world"], checkpoint.toybox_version
            errors.append(f"{checkpoint.name} was trained on toy world {before}; the current version is {now}")
        if set(record["parents"]) != set(checkpoint.parents):
            errors.append(f"{checkpoint.name} was trained from other parents than its lesson names")
        for parent, before in record["parents"].items():
            if not (folder / parent).exists() or checkpoint_hash(folder / parent) != before:
                errors.append(f"{checkpoint.name} was trained from {parent}, which has changed since")
    return errors


@command_line()
def main() -> None:
    parser = argparse.ArgumentParser(description="Train the checkpoints that later lessons start from.")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("checkpoint", nargs="?", help="a lesson's number, or judge")
    group.add_argument("--all", action="store_true", help="every checkpoint, parents first")
    options = parser.parse_args()
    for target in checkpoints() if options.all else [options.checkpoint]:
        folder = train_checkpoint(target)
        record = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
        for name, value in record["measured"].items():
            print(f"  {name}: {value}")
        print(f"{record['seconds']} s; {folder.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
