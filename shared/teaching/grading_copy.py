"""Write the copy of the course in which a student's code runs: no tests, no later lessons, no second solution."""

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
    originals = course_files(exercise.lesson)
    files = dict(originals)
    for other in lesson_exercises:
        place = str(other.path.relative_to(ROOT))
        solution = originals[place].decode()
        text = submitted if other.path == exercise.path else solution
        files[place] = merge_exercise(solution, text, exercise.number, required).encode()
    for place, content in files.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
