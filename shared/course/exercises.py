"""Exercises are the real code, between markers; this finds them, and takes the solution out.

# exercise 1.3: cut images into patches
…the solution…
# end exercise
"""

import re
from dataclasses import dataclass
from pathlib import Path

from shared.errors import CourseError

BEGIN = re.compile(r"^(\s*)# exercise (\d+\.\d+): (.+?)\s*$")
END = re.compile(r"^\s*# end exercise\s*$")


@dataclass(frozen=True)
class Exercise:
    """One marked part of one file: the lines between the markers are [first, last), counted from 0."""

    number: str
    title: str
    path: Path
    first: int
    last: int


def find_exercises(folder: Path) -> list[Exercise]:
    """Every exercise in a folder's Python files, by number. Raises CourseError for markers that don't pair up."""
    found: dict[str, Exercise] = {}
    for path in sorted(folder.rglob("*.py")):
        for exercise in _in_file(path):
            if exercise.number in found:
                raise CourseError(f"exercise {exercise.number} stands in {found[exercise.number].path} and in {path}")
            found[exercise.number] = exercise
    return sorted(found.values(), key=lambda exercise: [int(part) for part in exercise.number.split(".")])


def _in_file(path: Path) -> list[Exercise]:
    exercises, open_at = [], None
    for place, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        if begin := BEGIN.match(line):
            if open_at is not None:
                raise CourseError(
                    f"{path}:{place + 1}: an exercise begins before the one of line {open_at[1]} has ended"
                )
            open_at = (begin, place + 1)
        elif END.match(line):
            if open_at is None:
                raise CourseError(f"{path}:{place + 1}: “# end exercise” without a beginning")
            begin, first = open_at
            exercises.append(Exercise(begin[2], begin[3], path, first, place))
            open_at = None
    if open_at is not None:
        raise CourseError(f"{path}:{open_at[1]}: exercise {open_at[0][2]} has no “# end exercise”")
    return exercises


def without_solutions(text: str) -> str:
    """The text of a Python file with each solution replaced by an error that names its exercise."""
    kept, inside = [], False
    for line in text.splitlines(keepends=True):
        if begin := BEGIN.match(line):
            kept += [line, f'{begin[1]}raise NotImplementedError("exercise {begin[2]}: {begin[3]}")\n']
            inside = True
        elif END.match(line):
            kept.append(line)
            inside = False
        elif not inside:
            kept.append(line)
    return "".join(kept)
