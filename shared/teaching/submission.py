"""What a student handed in, a folder or a zip: only the files that hold exercises are read, and nothing is unpacked."""

import re
import stat
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from shared.errors import CourseError

LARGEST = 2**20  # bytes of one file of code
MOST_ENTRIES = 20_000  # of a zip
DEEPEST = 4  # folders around a lesson's own


@dataclass(frozen=True)
class Submission:
    """The files of one student, by their path in the course; what could not be taken stands in `problems`."""

    name: str
    files: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


def find_submissions(place: Path, lesson: str) -> list[Path]:
    """One submission, or every one in a folder of many. Raises CourseError where there is none."""
    if not place.exists():
        raise CourseError(f"{place}: no such submission; name a folder, a zip, or a folder that holds many of them")
    if place.is_file() or _lesson_in(place, lesson, deepest=1):
        return [place]
    found = [
        path
        for path in sorted(place.iterdir())
        if not path.name.startswith((".", "__")) and not path.is_symlink() and (path.is_dir() or path.suffix == ".zip")
    ]
    if not found:
        raise CourseError(f"{place}: neither a submission (it has no {lesson}) nor a folder of some (folders or zips)")
    return found


def names(places: Sequence[Path]) -> list[str]:
    """What each submission is called in tables and files: its own name, with nothing that a terminal or table obeys."""
    found: list[str] = []
    for place in places:
        clean = (
            re.sub(r"[^\w.@ -]+", "_", place.stem if place.suffix == ".zip" else place.name).strip(" .@-") or "unnamed"
        )
        name, count = clean[:80], 2
        while name.casefold() in (other.casefold() for other in found):
            name, count = f"{clean[:76]} ({count})", count + 1
        found.append(name)
    return found


def read_submission(place: Path, name: str, lesson: str, wanted: Sequence[str]) -> Submission:
    """Read the `wanted` files (paths such as "lessons/lesson_01_vit/reference.py") of one submission."""
    try:
        read = _in_zip(place, lesson) if place.is_file() else _in_folder(place, lesson)
    except (OSError, zipfile.BadZipFile, CourseError) as error:
        return Submission(name, {}, dict.fromkeys(wanted, f"can't be read: {error}"))
    files, problems = {}, {}
    for path in wanted:
        try:
            data = read(PurePosixPath(path).relative_to(PurePosixPath("lessons", lesson)))
            if len(data) > LARGEST:
                raise CourseError(f"is larger than {LARGEST:,} bytes")
            files[path] = data.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError:
            problems[path] = "is no UTF-8 text"
        except (KeyError, FileNotFoundError, NotADirectoryError):
            problems[path] = "was not handed in"
        except (OSError, CourseError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
            problems[path] = str(error)
    return Submission(name, files, problems)


def _lesson_in(place: Path, lesson: str, deepest: int = DEEPEST) -> Path | None:
    """The lesson's folder in a submission: `place` itself, or some folders down; links are not followed."""
    level = [place]
    for depth in range(deepest + 1):
        for folder in level:
            # A bundle's own folder has the lesson's name too, with `lessons` in it.
            if folder.name == lesson and not (folder / "lessons").is_dir():
                return folder
        if depth < deepest:
            level = [
                child
                for folder in level
                for child in sorted(folder.iterdir())[:200]
                if child.is_dir() and not child.is_symlink() and not child.name.startswith((".", "__"))
            ]
    return None


def _in_folder(place: Path, lesson: str):
    root = _lesson_in(place, lesson)
    if root is None:
        raise CourseError(f"no folder {lesson} in it")

    def read(path: PurePosixPath) -> bytes:
        # A link could name the solution, a pipe would never end: only plain files in plain folders are read.
        for part in [*reversed(path.parents), path]:
            mode = (root / part).lstat().st_mode
            if not (stat.S_ISREG(mode) if part == path else stat.S_ISDIR(mode)):
                raise CourseError(f"{part} is no plain {'file' if part == path else 'folder'}")
        with (root / path).open("rb") as file:
            return file.read(LARGEST + 1)

    return read


def _in_zip(place: Path, lesson: str):
    with zipfile.ZipFile(place) as archive:
        entries = archive.infolist()
        if len(entries) > MOST_ENTRIES:
            raise CourseError(f"{len(entries):,} entries; at most {MOST_ENTRIES:,} are read")
    roots = {}
    for entry in entries:
        parts = PurePosixPath(entry.filename).parts
        if lesson in parts[:-1] and not parts[0].startswith("__MACOSX"):
            # A bundle's own folder has the lesson's name too: the innermost is the lesson.
            depth = len(parts) - 1 - parts[-2::-1].index(lesson)
            roots.setdefault(parts[:depth], len(parts[:depth]))
    if not roots:
        raise CourseError(f"no folder {lesson} in it")
    root = PurePosixPath(*min(roots, key=lambda parts: (-(len(parts) > 1 and parts[-2] == "lessons"), len(parts))))

    def read(path: PurePosixPath) -> bytes:
        with zipfile.ZipFile(place) as archive, archive.open(str(root / path)) as file:
            return file.read(LARGEST + 1)

    return read
