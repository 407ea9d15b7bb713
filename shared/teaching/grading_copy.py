"""Write the copy of the course in which a student's code runs: no tests, no later lessons, no second solution."""

import importlib.util
import marshal
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from shared.course.exercises import Exercise
from shared.course.lesson import ROOT
from shared.teaching.markers import merge_exercise

FOLDERS = ("shared", "data", "lessons")
EXCLUDED = {"tests", "__pycache__", "cache", "checkpoints", "figures", "teaching"}
SUFFIXES = {".py", ".toml", ".json", ".gz"}


@cache
def course_files(lesson: int) -> dict[str, bytes]:
    """Return the files of the course that the code of lessons up to `lesson` needs: path → content."""
    files = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            place = path.relative_to(ROOT)
            if path.suffix not in SUFFIXES or not path.is_file() or EXCLUDED.intersection(place.parts):
                continue
            if place.parts[1].startswith("lesson_") and int(place.parts[1].split("_")[1]) > lesson:
                continue
            files[str(place)] = path.read_bytes()
    return files


def write_grading_copy(
    folder: Path, exercise: Exercise, submitted: str, lesson_exercises: Sequence[Exercise], required: frozenset[str]
) -> None:
    """Write the course into `folder`, with the student's file in place of the exercise's own.

    exercise          the exercise that is graded
    submitted         the student's version of its file
    lesson_exercises  all exercises of the lesson
    required          those that this exercise needs; they are solved, and the rest is left open, so that a solution
                      cannot be copied from another exercise with the same idea
    """
    files = dict(course_files(exercise.lesson))
    for path in {other.path for other in lesson_exercises}:
        place = str(path.relative_to(ROOT))
        solution = files.pop(place).decode()
        text = submitted if path == exercise.path else solution
        merged = merge_exercise(solution, text, exercise.number, required)
        if path != exercise.path and any(other.path == path and other.number in required for other in lesson_exercises):
            # Solved, and not readable as source: the student's code can call it, and that is all.
            files[f"{place}c"] = compiled(merged, place)
        else:
            files[place] = merged.encode()
    for place, content in files.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def compiled(text: str, place: str) -> bytes:
    """Return a module as Python imports it without its source: a header and the code object."""
    header = importlib.util.MAGIC_NUMBER + bytes(12)  # no flags, and neither time nor size of a source
    return header + marshal.dumps(compile(text, place, "exec", dont_inherit=True))
