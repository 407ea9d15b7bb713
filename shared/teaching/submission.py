"""Read what a student handed in, a folder or a zip: only the files that hold exercises, and nothing is unpacked."""

import re
import stat
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from shared.errors import CourseError

MAX_FILE_SIZE = 2**20  # bytes of one file of code
MAX_ENTRIES = 20_000  # of a zip
MAX_DEPTH = 4  # folders around a lesson's folder
MAX_SUBFOLDERS = 200  # that are searched in one folder
MAX_NAME_LENGTH = 80

Reader = Callable[[PurePosixPath], bytes]
"""Reads one file of a submission, named by its path in the course."""


@dataclass(frozen=True)
class Submission:
    """The files of one student, by their path in the course; `problems` holds why a file could not be read."""

    name: str
    files: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


def find_submissions(place: Path, lesson: str) -> list[Path]:
    """Return one submission, or every submission in a folder of many. Raises CourseError when there is none."""
    if not place.exists():
        raise CourseError(f"{place} does not exist; name a folder, a zip, or a folder that holds many of them")
    if place.is_file() or _find_lesson(place, lesson, max_depth=1):
        return [place]
    submissions = [
        path
        for path in sorted(place.iterdir())
        if not path.name.startswith((".", "__")) and not path.is_symlink() and (path.is_dir() or path.suffix == ".zip")
    ]
    if not submissions:
        raise CourseError(
            f"{place}: neither a submission (it has no {lesson}) nor a folder of submissions (folders or zips)"
        )
    return submissions


def submission_names(places: Sequence[Path]) -> list[str]:
    """Return a unique name per submission, without characters that a terminal, file name or spreadsheet interprets."""
    names: list[str] = []
    for place in places:
        stem = place.stem if place.suffix == ".zip" else place.name
        clean = re.sub(r"[^\w.@ -]+", "_", stem).strip(" .@-") or "unnamed"
        name, count = clean[:MAX_NAME_LENGTH], 2
        while name.casefold() in (other.casefold() for other in names):
            name, count = f"{clean[: MAX_NAME_LENGTH - 4]} ({count})", count + 1
        names.append(name)
    return names


def read_submission(place: Path, name: str, lesson: str, paths: Sequence[str]) -> Submission:
    """Read some files of one submission, named by their path in the course.

    Files of the lesson ("lessons/lesson_01_vit/reference.py") are found wherever the lesson's folder is. Others
    ("shared/finetuning/lora.py") are looked for beside `lessons`, or beside the lesson's folder when there is no
    `lessons` around it.
    """
    try:
        read = _zip_reader(place, lesson) if place.is_file() else _folder_reader(place, lesson)
    except (OSError, zipfile.BadZipFile, CourseError) as error:
        return Submission(name, {}, dict.fromkeys(paths, f"can't be read: {error}"))
    files, problems = {}, {}
    for path in paths:
        try:
            data = read(PurePosixPath(path))
            if len(data) > MAX_FILE_SIZE:
                raise CourseError(f"is larger than {MAX_FILE_SIZE:,} bytes")
            files[path] = data.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError:
            problems[path] = "is not UTF-8 text"
        except (KeyError, FileNotFoundError, NotADirectoryError):
            problems[path] = "was not handed in"
        except (OSError, CourseError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
            problems[path] = str(error)
    return Submission(name, files, problems)


def _find_lesson(place: Path, lesson: str, max_depth: int = MAX_DEPTH) -> Path | None:
    """Return the lesson's folder in a submission: `place` itself, or some levels down. Links are not followed."""
    level = [place]
    for depth in range(max_depth + 1):
        for folder in level:
            # The folder of a whole bundle has the lesson's name too, with `lessons` in it.
            if folder.name == lesson and not (folder / "lessons").is_dir():
                return folder
        if depth < max_depth:
            level = [
                child
                for folder in level
                for child in sorted(folder.iterdir())[:MAX_SUBFOLDERS]
                if child.is_dir() and not child.is_symlink() and not child.name.startswith((".", "__"))
            ]
    return None


def _folder_reader(place: Path, lesson: str) -> Reader:
    lesson_folder = _find_lesson(place, lesson)
    if lesson_folder is None:
        raise CourseError(f"no folder {lesson} in it")
    parent = lesson_folder.parent
    course_folder = parent.parent if parent.name == "lessons" else parent
    in_lesson = PurePosixPath("lessons", lesson)

    def read(path: PurePosixPath) -> bytes:
        root = course_folder
        if path.is_relative_to(in_lesson):
            root, path = lesson_folder, path.relative_to(in_lesson)
        elif not course_folder.is_relative_to(place):
            raise FileNotFoundError(path)  # beside the submission, not in it
        # A link could name the solution, and a pipe would block: read only regular files in real folders.
        for part in [*reversed(path.parents), path]:
            mode = (root / part).lstat().st_mode
            if not (stat.S_ISREG(mode) if part == path else stat.S_ISDIR(mode)):
                raise CourseError(f"{part} is not a plain {'file' if part == path else 'folder'}")
        with (root / path).open("rb") as file:
            return file.read(MAX_FILE_SIZE + 1)

    return read


def _zip_reader(place: Path, lesson: str) -> Reader:
    with zipfile.ZipFile(place) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_ENTRIES:
            raise CourseError(f"{len(entries):,} entries; at most {MAX_ENTRIES:,} are read")
    roots: dict[tuple[str, ...], None] = {}
    for entry in entries:
        parts = PurePosixPath(entry.filename).parts
        if lesson in parts[:-1] and not parts[0].startswith("__MACOSX"):
            # The folder of a whole bundle has the lesson's name too: the innermost is the lesson.
            depth = len(parts) - 1 - parts[-2::-1].index(lesson)
            roots[parts[:depth]] = None
    if not roots:
        raise CourseError(f"no folder {lesson} in it")
    root = min(roots, key=lambda parts: (parts[-2:-1] != ("lessons",), len(parts)))
    lesson_folder = PurePosixPath(*root)
    course_folder = PurePosixPath(*(root[:-2] if root[-2:-1] == ("lessons",) else root[:-1]))
    in_lesson = PurePosixPath("lessons", lesson)

    def read(path: PurePosixPath) -> bytes:
        inside = lesson_folder / path.relative_to(in_lesson) if path.is_relative_to(in_lesson) else course_folder / path
        with zipfile.ZipFile(place) as archive, archive.open(str(inside)) as file:
            return file.read(MAX_FILE_SIZE + 1)

    return read
