"""Find the submissions in an instructor's folder: every entry is a submission or a line that says why it is none.

Names that Moodle, Canvas and Blackboard give to downloaded submissions are taken apart into the student and the time.
"""

import contextlib
import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from shared.errors import CourseError
from shared.teaching.archives import is_archive, is_other_archive, without_archive_suffix
from shared.teaching.submission import find_lesson

MOODLE = re.compile(r"^(?P<student>.+)_(?P<attempt>\d+)_assignsubmission_\w*$")
BLACKBOARD = re.compile(r"^.+_(?P<student>[^_]+)_attempt_(?P<attempt>\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d)(?:_.*)?$")
CANVAS = re.compile(r"^(?P<student>[^\W_]+)(?P<late>_LATE)?_(?P<id>\d+)_(?P<attempt>\d+)_.+$")
VERSION = re.compile(
    r"^(?P<student>.*\w)[ _-]*(?:[ _-](?P<word>draft|final)|[ _-]v(?P<version>\d+)|\((?P<copy>\d+)\))$", re.I
)
FINAL = 10**9
# A hand-in is a folder or a file of these kinds; a file of another kind lies in the folder for another reason.
CODE = {".py", ".ipynb"}


@dataclass(frozen=True)
class HandIn:
    """One entry of the folder: the student's name, and where it stands among the student's others."""

    place: Path
    student: str
    rank: tuple[str, int] = ("", 1)
    """The attempt as the learning platform counts it, and the version by its name (draft, none, 2, …, final)."""
    late: bool = False
    """True when the learning platform marks it as late."""
    stated: datetime | None = None
    """When it was handed in, where the platform's name states it."""


@dataclass
class ClassFolder:
    """The submission of each student, and a line for each other entry of the folder."""

    hand_ins: list[HandIn] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_submissions(place: Path, lesson: str) -> ClassFolder:
    """Return one submission, or every submission in a folder of many. Raises CourseError when there is none."""
    if not place.exists():
        raise CourseError(f"{place} does not exist; name a folder, an archive, or a folder that holds many of them")
    if place.is_file() or _is_one_submission(place, lesson):
        return ClassFolder([parse_name(place)])
    entries = ClassFolder()
    for path in sorted(place.iterdir()):
        if path.name.startswith((".", "__")):
            entries.notes.append(f"{path.name!r} is hidden: not a submission")
        elif path.is_symlink() or _looks_handed_in(path):
            entries.hand_ins.append(parse_name(path))
        else:
            entries.notes.append(f"{path.name!r} is neither a folder nor an archive: not a submission")
    if not entries.hand_ins:
        raise CourseError(
            f"{place}: neither a submission (it has no {lesson}) nor a folder of submissions (folders or archives)"
        )
    entries.hand_ins = _latest(entries)
    return entries


def parse_name(path: Path) -> HandIn:
    """Return the hand-in that a folder's or file's name states."""
    name = path.name if path.is_dir() else without_archive_suffix(path.name)
    for pattern in (MOODLE, BLACKBOARD, CANVAS):
        if match := pattern.match(name):
            groups = match.groupdict()
            # Canvas gives two students with the same name different ids.
            student = f"{groups['student']} {groups['id']}" if groups.get("id") else groups["student"]
            attempt = groups["attempt"]
            stated = None
            if pattern is BLACKBOARD:
                with contextlib.suppress(ValueError):
                    stated = datetime.strptime(attempt, "%Y-%m-%d-%H-%M-%S")
            return HandIn(path, student, (attempt.zfill(20), 1), bool(groups.get("late")), stated)
    student, version = _version(name)
    return HandIn(path, student, ("", version))


def _version(name: str) -> tuple[str, int]:
    """Return a name without "-draft", "_v2", "(1)" or "-final" at its end, and the version's rank."""
    match = VERSION.match(name)
    if not match:
        return name, 1
    if match["word"]:
        return match["student"], FINAL if match["word"].lower() == "final" else 0
    return match["student"], 1 + int(match["version"] or match["copy"])


def _looks_handed_in(path: Path) -> bool:
    return path.is_dir() or is_archive(path.name) or is_other_archive(path.name) or path.suffix.lower() in CODE


def _is_one_submission(place: Path, lesson: str) -> bool:
    """Return True for a lesson's folder, a bundle's folder, and a folder with nothing but one of them."""
    if (place / "lessons" / lesson).is_dir() or (place.name == lesson and (place / "reference.py").exists()):
        return True
    others = [
        path for path in place.iterdir() if path.name != lesson and not path.is_symlink() and _holds(path, lesson)
    ]
    return not others and find_lesson(place, lesson, max_depth=1) is not None


def _holds(path: Path, lesson: str) -> bool:
    """Return True for an archive, and for a folder with the lesson or an archive in it."""
    if path.is_dir():
        return find_lesson(path, lesson) is not None or any(is_archive(child.name) for child in path.iterdir())
    return is_archive(path.name) or is_other_archive(path.name)


def _latest(entries: ClassFolder) -> list[HandIn]:
    """Return the latest hand-in of each student, in the folder's order, with a line for each earlier one."""
    latest: dict[str, HandIn] = {}
    for hand_in in entries.hand_ins:
        other = latest.get(hand_in.student)
        if other is None:
            latest[hand_in.student] = hand_in
            continue
        earlier, later = sorted((other, hand_in), key=lambda each: (each.rank, each.place.lstat().st_mtime_ns))
        latest[hand_in.student] = later
        entries.notes.append(
            f"{earlier.place.name!r} is an earlier hand-in of {later.student!r}; {later.place.name!r} is graded"
        )
    return list(latest.values())
