"""Read what a student handed in, a folder or an archive: only files with exercises, and nothing is unpacked."""

import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from shared.errors import CourseError
from shared.teaching.archives import Archive, archives_in, open_archive

MAX_FILE_SIZE = 2**20  # bytes of one file of code
MAX_DEPTH = 4  # folders around a lesson's folder
MAX_SUBFOLDERS = 200  # that are searched in one folder
MAX_NAME_LENGTH = 80

NOT_HANDED_IN, TOO_LARGE, UNREADABLE = "was not handed in", "is too large", "can't be read"

Reader = Callable[[PurePosixPath], bytes]
"""Reads one file of a submission, named by its path in the course."""


@dataclass(frozen=True)
class Submission:
    """The files of one student, by their path in the course; `problems` holds why a file could not be read."""

    name: str
    files: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    """What the instructor should know of how it was read."""


def submission_names(students: Sequence[str]) -> list[str]:
    """Return a unique name per submission, without characters that a terminal, file name or spreadsheet interprets."""
    names: list[str] = []
    for student in students:
        clean = re.sub(r"[^\w.@ -]+", "_", student).strip(" .@-") or "unnamed"
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
    note = ""
    try:
        if place.is_symlink() or not (place.is_file() or place.is_dir()):
            raise CourseError("it is a link or a special file, which is not followed")
        archives = list(archives_in(place)) if place.is_dir() and find_lesson(place, lesson) is None else []
        if archives:
            place = max(archives, key=lambda path: path.stat().st_mtime)
        if len(archives) > 1:
            note = f"{len(archives)} archives in the folder; the latest, {place.name}, is graded"
        read = _archive_reader(open_archive(place), lesson) if place.is_file() else _folder_reader(place, lesson)
    except (OSError, CourseError) as error:
        return Submission(name, {}, dict.fromkeys(paths, f"{UNREADABLE}: {error}"), note)
    files, problems = {}, {}
    for path in paths:
        try:
            data = read(PurePosixPath(path))
            if len(data) > MAX_FILE_SIZE:
                raise CourseError(f"{TOO_LARGE}: more than {MAX_FILE_SIZE:,} bytes")
            files[path] = data.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError:
            problems[path] = f"{UNREADABLE}: it is not UTF-8 text"
        except (KeyError, FileNotFoundError, NotADirectoryError):
            problems[path] = NOT_HANDED_IN
        except (OSError, CourseError) as error:
            text = str(error)
            problems[path] = text if text.startswith(TOO_LARGE) else f"{UNREADABLE}: {text}"
    return Submission(name, files, problems, note)


def find_lesson(place: Path, lesson: str, max_depth: int = MAX_DEPTH) -> Path | None:
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
    lesson_folder = find_lesson(place, lesson)
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


def _archive_reader(archive: Archive, lesson: str) -> Reader:
    roots: dict[tuple[str, ...], None] = {}
    for name in archive.names:
        parts = PurePosixPath(name).parts
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
    names = {str(PurePosixPath(name)): name for name in archive.names}

    def read(path: PurePosixPath) -> bytes:
        inside = lesson_folder / path.relative_to(in_lesson) if path.is_relative_to(in_lesson) else course_folder / path
        if str(inside) not in names:
            raise FileNotFoundError(path)
        return archive.read(names[str(inside)], MAX_FILE_SIZE + 1)

    return read
