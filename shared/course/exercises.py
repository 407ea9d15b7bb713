"""Find exercises, and take their solutions out of the code.

An exercise is a part of the real code between two markers:

    # exercise 1.3: cut images into patches
    …the solution…
    # end exercise

Exercises of lesson N are numbered N.1, N.2, …. They stand in the lesson's folder, or in files that the lesson names in
`exercises.toml` (in its folder or in the folder of one of its parts), as paths from the repository's root:

    files = ["shared/finetuning/lora.py"]

Standard library only: students' bundles and `make check` use it before anything else is loaded.
"""

import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from shared.errors import CourseError
from shared.text_files import read_text

# `.*\S` and not `.+?\s*`: a line of a million spaces takes milliseconds, not an hour.
BEGIN = re.compile(r"^(\s*)# exercise (\d+\.\d+): (.*\S)\s*$")
END = re.compile(r"^\s*# end exercise\s*$")
FILE_LIST = "exercises.toml"


@dataclass(frozen=True)
class Exercise:
    """One marked part of one file: the lines between the markers are [first, last), counted from 0."""

    number: str
    title: str
    path: Path
    first: int
    last: int

    @property
    def lesson(self) -> int:
        """The number of the lesson that the exercise belongs to."""
        return int(self.number.split(".")[0])


def find_exercises(folder: Path) -> list[Exercise]:
    """Return every exercise of a lesson's folder, or of the folder of one part, sorted by number.

    Exercises are in the folder's Python files and in the files that an `exercises.toml` in it names. A named file may
    hold exercises of several lessons; only those of this lesson are returned.

    Raises CourseError for markers that do not pair up, a number that occurs twice, and an invalid `exercises.toml`.
    """
    exercises: dict[str, Exercise] = {}
    outside = outside_files(folder)
    for path in [*sorted(folder.rglob("*.py")), *outside]:
        in_file = exercises_in_file(path)
        if path in outside:
            in_file = [exercise for exercise in in_file if exercise.lesson == _lesson_number(folder)]
            if not in_file:
                raise CourseError(
                    f"{path}: {FILE_LIST} of {folder.name} names it, and it has no exercise of the lesson"
                )
        for exercise in in_file:
            if exercise.number in exercises:
                other = exercises[exercise.number].path
                raise CourseError(f"exercise {exercise.number} is in {other} and in {path}; give one another number")
            exercises[exercise.number] = exercise
    return sorted(exercises.values(), key=lambda exercise: [int(part) for part in exercise.number.split(".")])


def outside_files(folder: Path) -> list[Path]:
    """Return the files outside a lesson's folder that hold exercises of it, in the order in which they are named.

    Raises CourseError for an `exercises.toml` that is not TOML, has unknown keys, or names a file that does not exist
    or lies outside the repository or inside the lesson.
    """
    files: dict[Path, None] = {}
    for file_list in sorted(folder.rglob(FILE_LIST)):
        try:
            content = tomllib.loads(file_list.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise CourseError(f"{file_list}: {error}") from None
        names = content.get("files")
        if set(content) != {"files"} or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise CourseError(f'{file_list}: expected one line, files = ["shared/…/module.py"]')
        lesson = _lesson_folder(folder)
        root = lesson.parent.parent
        for name in names:
            place = PurePosixPath(name)
            path = root / place
            if place.is_absolute() or ".." in place.parts or not path.is_file() or place.suffix != ".py":
                raise CourseError(
                    f"{file_list}: {name!r} is not a Python file of the repository; name it from its root"
                )
            if path.is_relative_to(lesson):
                raise CourseError(f"{file_list}: {name!r} is in the lesson's folder, where exercises are found anyway")
            files[path] = None
    return list(files)


def _lesson_folder(folder: Path) -> Path:
    """Return the lesson's folder (lessons/lesson_NN_name) for itself or for a folder in it."""
    for place in (folder, *folder.parents):
        if re.match(r"lesson_\d+_", place.name):
            return place
    raise CourseError(f"{folder} is not in a lesson's folder, lessons/lesson_NN_name, so it can have no {FILE_LIST}")


def _lesson_number(folder: Path) -> int:
    return int(_lesson_folder(folder).name.split("_")[1])


def exercises_in_file(path: Path) -> list[Exercise]:
    """Return the exercises of one file, in its order. Raises CourseError for markers that do not pair up."""
    exercises: list[Exercise] = []
    begin: tuple[re.Match[str], int] | None = None
    for index, line in enumerate(read_text(path).splitlines()):
        if match := BEGIN.match(line):
            if begin is not None:
                raise CourseError(f"{path}:{index + 1}: an exercise begins before that of line {begin[1]} has ended")
            begin = (match, index + 1)
        elif END.match(line):
            if begin is None:
                raise CourseError(f"{path}:{index + 1}: “# end exercise” without a beginning")
            exercises.append(Exercise(begin[0][2], begin[0][3], path, begin[1], index))
            begin = None
    if begin is not None:
        raise CourseError(f"{path}:{begin[1]}: exercise {begin[0][2]} has no “# end exercise”")
    return exercises


def without_solutions(text: str, numbers: Collection[str] | None = None) -> str:
    """Return the text of a Python file with each solution replaced by an error that names its exercise.

    numbers  only these exercises (such as "1.3") are opened; all when None
    """
    lines: list[str] = []
    in_solution = False
    for line in text.splitlines(keepends=True):
        begin = BEGIN.match(line)
        if begin and (numbers is None or begin[2] in numbers):
            lines += [line, f'{begin[1]}raise NotImplementedError("exercise {begin[2]}: {begin[3]}")\n']
            in_solution = True
        elif END.match(line):
            lines.append(line)
            in_solution = False
        elif not in_solution:
            lines.append(line)
    return "".join(lines)
