"""Plant errors that students make: a list per lesson, written from the exercises' text and not from their tests.

An entry of `student_bugs/lesson_NN.toml` replaces a part of a solution, `old` by `new`, or all of it, by `code`.
"""

import ast
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from shared.course.exercises import Exercise
from shared.errors import CourseError
from shared.teaching.markers import exercise_code, exercises_of
from shared.teaching.mutation.mutants import Mutant
from shared.teaching.mutation.run_mutants import Outcome, Report, run_planted

FOLDER = Path(__file__).with_name("student_bugs")
KEYS = ({"exercise", "error", "old", "new"}, {"exercise", "error", "code"})


def lessons_with_bugs() -> list[int]:
    """Return the numbers of the lessons that have a list of student bugs."""
    return sorted(int(path.stem.split("_")[1]) for path in FOLDER.glob("lesson_*.toml"))


def student_bugs(lesson: int, folder: Path = FOLDER) -> list[tuple[Exercise, Mutant]]:
    """Return the planted bugs of a lesson, in the order of its list; the mutant's kind describes the error.

    Raises CourseError for an entry with other keys, an unknown exercise, an `old` that does not occur exactly once in
    the solution, and code that Python does not parse.
    """
    path = folder / f"lesson_{lesson:02d}.toml"
    exercises = {exercise.number: exercise for exercise in exercises_of(lesson)}
    bugs = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["bug"]:
        place = f"{path.name}, {entry.get('exercise')}, {entry.get('error')!r}"
        if set(entry) not in KEYS or entry["exercise"] not in exercises:
            raise CourseError(f"{place}: expected an exercise of lesson {lesson}, error, and old and new or code")
        exercise = exercises[entry["exercise"]]
        text = planted(exercise, entry, place)
        bugs.append((exercise, Mutant(entry["error"], exercise.first + 1, text)))
    return bugs


def planted(exercise: Exercise, entry: Mapping[str, str], place: str) -> str:
    """Return the text of an exercise's file with a bug in place of the solution. Raises as `student_bugs` does."""
    text = exercise.path.read_text(encoding="utf-8")
    solution = exercise_code(text, exercise.number)
    lines = text.splitlines(keepends=True)
    if "code" in entry:
        marker = lines[exercise.first - 1]
        indent = marker[: len(marker) - len(marker.lstrip())]
        buggy = textwrap.indent(entry["code"].strip("\n") + "\n", indent)
    else:
        if solution.count(entry["old"]) != 1:
            raise CourseError(f"{place}: {entry['old']!r} occurs {solution.count(entry['old'])} times in the solution")
        buggy = solution.replace(entry["old"], entry["new"])
    result = "".join([*lines[: exercise.first], buggy, *lines[exercise.last :]])
    try:
        unchanged = ast.dump(ast.parse(result)) == ast.dump(ast.parse(text))
    except SyntaxError as error:
        raise CourseError(f"{place}: Python does not parse the result: {error}") from None
    if unchanged:
        raise CourseError(f"{place}: the code does the same as the solution")
    return result


def run_student_bugs(lessons: Sequence[int], report: Report = lambda outcome: None) -> dict[int, list[Outcome]]:
    """Test the student bugs of some lessons, exercise by exercise. Return lesson → outcome of each bug.

    Raises CourseError for a bug that uses an undefined name, which any test catches, and as `student_bugs` does.
    """
    bugs = [bug for lesson in lessons for bug in student_bugs(lesson)]
    order = {number: place for place, number in enumerate(dict.fromkeys(each.number for each, _ in bugs))}
    bugs.sort(key=lambda bug: order[bug[0].number])
    # `make check-N` and the lessons' own tests run the tests on the solutions.
    outcomes = run_planted(lessons, bugs, report, check_solutions=False)
    for each in (outcome for of_lesson in outcomes.values() for outcome in of_lesson):
        if "NameError" in each.message or each.caught_by == "import":
            raise CourseError(
                f"{each.exercise.number}, {each.mutant.kind!r}: this code fails by itself: {each.message}"
            )
    return outcomes
