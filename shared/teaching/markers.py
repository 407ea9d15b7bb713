"""Take exercises apart and put them together: a student's part over the rest of the solution."""

import re
from collections.abc import Mapping
from pathlib import Path

from shared.course.exercises import BEGIN, END, Exercise, find_exercises, without_solutions
from shared.course.lesson import ROOT
from shared.errors import CourseError


def exercise_folder(number: int) -> Path:
    """The folder of a lesson that has exercises. Raises CourseError where there is none."""
    found = [path for path in sorted((ROOT / "lessons").glob(f"lesson_{number:02d}_*")) if exercise_tests(path)]
    if not found:
        built = [
            path.name.split("_")[1] for path in sorted((ROOT / "lessons").glob("lesson_*")) if exercise_tests(path)
        ]
        raise CourseError(
            f"lesson {number} has no exercises here; lessons that do: {', '.join(str(int(each)) for each in built)}"
        )
    return found[0]


def exercise_tests(folder: Path) -> list[Path]:
    """The test files that grade a lesson's exercises."""
    return sorted((folder / "tests").glob("test_exercises*.py"))


def exercises_of(number: int) -> list[Exercise]:
    """The exercises of a lesson, in order. Raises CourseError where it has none."""
    return find_exercises(exercise_folder(number))


def parts(text: str) -> dict[str, tuple[int, int]]:
    """Where each exercise's own lines stand in a file, [first, last) from 0; nothing where its markers don't pair up."""
    found, begin = {}, None
    for place, line in enumerate(text.splitlines()):
        if match := BEGIN.match(line):
            if begin is not None or match[2] in found:
                return {}
            begin = (match[2], place + 1)
        elif END.match(line):
            if begin is None:
                return {}
            found[begin[0]] = (begin[1], place)
            begin = None
    return {} if begin is not None else found


def part(text: str, exercise: str) -> str:
    """The lines of one exercise."""
    first, last = parts(text)[exercise]
    return "".join(text.splitlines(keepends=True)[first:last])


def stub(text: str, exercise: str) -> str:
    """What stands in an exercise's place while it is open: the error that names it."""
    return part(without_solutions(text), exercise)


def over(solution: str, theirs: str, exercise: str, needed: frozenset[str]) -> str:
    """A student's file with nothing of theirs but one exercise: of the others, the `needed` ones solved, the rest left out.

    What a student wrote beside the markers stays: an import, a helper. Where the markers are gone or broken there is no
    telling which part is which, and the file is judged as it is.
    """
    lines, solved, empty = theirs.splitlines(keepends=True), parts(solution), without_solutions(solution)
    for number, (first, last) in sorted(parts(theirs).items(), key=lambda found: -found[1][0]):
        if number != exercise and number in solved:
            lines[first:last] = [part(solution if number in needed else empty, number)]
    return "".join(lines)


def untouched(text: str, exercise: Exercise) -> bool:
    """True where the exercise stands as it was handed out: nothing but the error that names it."""
    places = parts(text)
    if exercise.number not in places:
        return False
    return (
        part(text, exercise.number).strip()
        == f'raise NotImplementedError("exercise {exercise.number}: {exercise.title}")'
    )


def listed(folder: Path) -> dict[str, dict]:
    """What a lesson's pages say of each exercise: {"title", "difficulty", "minutes", "hint"}.

    The page of a lesson has a table `| 1.1 | title | difficulty | minutes | …` and hints `* 1.1: …` in its <details>.
    """
    found: dict[str, dict] = {}
    pages = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("README.md"))]
    for text in pages:
        for row in re.finditer(r"^\| (\d+\.\d+) \| ([^|]+?) \| ([1-5]) \| (\d+) \|", text, flags=re.M):
            found[row[1]] = {"title": row[2], "difficulty": int(row[3]), "minutes": int(row[4]), "hint": ""}
    for text in pages:
        for details in re.findall(r"<details>.*?</details>", text, flags=re.S):
            for hint in re.finditer(
                r"^[*-] (\d+\.\d+):\s*(.+?)(?=\n[*-] |\n\n|</details>)", details, flags=re.S | re.M
            ):
                if hint[1] in found:
                    found[hint[1]]["hint"] = " ".join(hint[2].split())
    return found


def solutions(exercises: list[Exercise]) -> Mapping[str, str]:
    """The solution of each exercise, by its number."""
    return {exercise.number: part(exercise.path.read_text(encoding="utf-8"), exercise.number) for exercise in exercises}
