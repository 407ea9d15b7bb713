"""Take files with exercises apart and put them together again, and read what a lesson's pages say of its exercises."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from shared.course.exercises import BEGIN, END, Exercise, find_exercises, without_solutions
from shared.course.lesson import ROOT
from shared.errors import CourseError


@dataclass(frozen=True)
class ExerciseInfo:
    """What the pages of a lesson say of one exercise."""

    title: str
    difficulty: int
    """From 1 to 5."""
    minutes: int
    hint: str = ""


def exercise_folder(number: int) -> Path:
    """Return the folder of a lesson that has exercises. Raises CourseError when there is none."""
    folders = [path for path in sorted((ROOT / "lessons").glob(f"lesson_{number:02d}_*")) if exercise_tests(path)]
    if not folders:
        with_exercises = ", ".join(map(str, lessons_with_exercises()))
        raise CourseError(f"lesson {number} has no exercises; lessons with exercises: {with_exercises}")
    return folders[0]


def lessons_with_exercises() -> list[int]:
    """Return the numbers of all lessons that have exercises."""
    folders = sorted((ROOT / "lessons").glob("lesson_*"))
    return [int(folder.name.split("_")[1]) for folder in folders if exercise_tests(folder)]


def exercise_tests(folder: Path) -> list[Path]:
    """Return the test files that grade a lesson's exercises."""
    return sorted((folder / "tests").glob("test_exercises*.py"))


def exercises_of(number: int) -> list[Exercise]:
    """Return the exercises of a lesson, in order. Raises CourseError when it has none."""
    return find_exercises(exercise_folder(number))


def exercise_ranges(text: str) -> dict[str, tuple[int, int]]:
    """Return the lines [first, last) of each exercise in a file, counted from 0; {} when markers do not pair up."""
    ranges: dict[str, tuple[int, int]] = {}
    begin: tuple[str, int] | None = None
    for index, line in enumerate(text.splitlines()):
        if match := BEGIN.match(line):
            if begin is not None or match[2] in ranges:
                return {}
            begin = (match[2], index + 1)
        elif END.match(line):
            if begin is None:
                return {}
            ranges[begin[0]] = (begin[1], index)
            begin = None
    return {} if begin is not None else ranges


def exercise_code(text: str, number: str) -> str:
    """Return the lines between the markers of one exercise."""
    first, last = exercise_ranges(text)[number]
    return "".join(text.splitlines(keepends=True)[first:last])


def exercise_stub(text: str, number: str) -> str:
    """Return the line of an open exercise: the error that names it."""
    return exercise_code(without_solutions(text), number)


def merge_exercise(solution: str, submitted: str, number: str, required: frozenset[str]) -> str:
    """Return a student's file that keeps the student's code of one exercise only.

    solution   the file as it is in the course
    submitted  the file as the student handed it in
    number     the exercise to keep
    required   other exercises of the lesson that are replaced by their solutions; the rest is left open

    Exercises of other lessons in the file are replaced by their solutions. Code outside the markers, such as imports
    and helper functions, is kept. When the markers are missing or do not pair up, the file is returned as it is.
    """
    lines, solved, opened = submitted.splitlines(keepends=True), exercise_ranges(solution), without_solutions(solution)
    lesson = number.split(".")[0]
    for other, (first, last) in sorted(exercise_ranges(submitted).items(), key=lambda entry: -entry[1][0]):
        if other != number and other in solved:
            source = solution if other in required or other.split(".")[0] != lesson else opened
            lines[first:last] = [exercise_code(source, other)]
    return "".join(lines)


def is_untouched(text: str, exercise: Exercise) -> bool:
    """Return True when the exercise still has nothing but the error that names it."""
    if exercise.number not in exercise_ranges(text):
        return False
    stub = f'raise NotImplementedError("exercise {exercise.number}: {exercise.title}")'
    return exercise_code(text, exercise.number).strip() == stub


def exercise_table(folder: Path) -> dict[str, ExerciseInfo]:
    """Return what a lesson's pages say of each exercise, by its number.

    A page has a table with rows `| 1.1 | title | difficulty | minutes | …` and hints `* 1.1: …` in its <details>.
    """
    table: dict[str, ExerciseInfo] = {}
    pages = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("README.md"))]
    for text in pages:
        for row in re.finditer(r"^\| (\d+\.\d+) \| ([^|]+?) \| ([1-5]) \| (\d+) \|", text, flags=re.M):
            table[row[1]] = ExerciseInfo(row[2], int(row[3]), int(row[4]))
    for text in pages:
        for details in re.findall(r"<details>.*?</details>", text, flags=re.S):
            hints = re.finditer(r"^[*-] (\d+\.\d+):\s*(.+?)(?=\n[*-] |\n\n|</details>)", details, flags=re.S | re.M)
            for hint in hints:
                if hint[1] in table:
                    table[hint[1]] = replace(table[hint[1]], hint=" ".join(hint[2].split()))
    return table


def solutions(exercises: list[Exercise]) -> Mapping[str, str]:
    """Return the code of each exercise as it is in the files now, by number."""
    return {each.number: exercise_code(each.path.read_text(encoding="utf-8"), each.number) for each in exercises}
