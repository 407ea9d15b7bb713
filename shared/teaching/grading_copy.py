"""The copy of the course in which a student's code runs: no tests, no later lesson, no other copy of the solution."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from shared.course.exercises import Exercise
from shared.course.lesson import ROOT
from shared.teaching.markers import over

SKIPPED = {"tests", "__pycache__", "cache", "checkpoints", "figures", "teaching"}
SUFFIXES = {".py", ".toml", ".json", ".gz"}


@cache
def course_files(number: int) -> dict[str, bytes]:
    """What code needs of the course up to lesson `number`: path → content."""
    found = {}
    for top in ("shared", "data", "lessons"):
        for path in sorted((ROOT / top).rglob("*")):
            place = path.relative_to(ROOT)
            if path.suffix not in SUFFIXES or not path.is_file() or SKIPPED.intersection(place.parts):
                continue
            if place.parts[1].startswith("lesson_") and int(place.parts[1].split("_")[1]) > number:
                continue
            found[str(place)] = path.read_bytes()
    return found


def lay_out(
    folder: Path, number: int, exercise: Exercise, text: str, all_of_them: Sequence[Exercise], needed: frozenset[str]
) -> None:
    """Write the course into `folder`, with a student's file in the place of the exercise's own.

    Of the other exercises, those that this one needs are solved, and the rest are left out: what is the same idea twice
    can't be taken from its twin.
    """
    files = dict(course_files(number))
    for other in all_of_them:
        place = str(other.path.relative_to(ROOT))
        solution = course_files(number)[place].decode()
        theirs = text if other.path == exercise.path else solution
        files[place] = over(solution, theirs, exercise.number, needed).encode()
    for place, content in files.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
