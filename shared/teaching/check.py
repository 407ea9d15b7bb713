"""`make check`: say of every exercise of a lesson whether it is solved, and give a hint where it is not.

python -m shared.teaching.check 1 [--exercise 1.3]
"""

import argparse
import contextlib
import hashlib
import io
import json
import sys
from collections.abc import Sequence

import pytest
from rich.console import Console
from rich.markup import escape

from shared.atomic import write_atomically
from shared.cli import command_line
from shared.course.exercises import Exercise
from shared.course.lesson import ROOT
from shared.errors import CourseError
from shared.teaching.markers import exercise_folder, exercise_tests, exercises_of, listed, solutions, untouched


class Tally:
    """A plugin for pytest that runs the tests of some exercises, and counts for each what passes."""

    def __init__(self, wanted: Sequence[str]):
        self.found = {name: {"passed": 0, "tests": 0, "test": "", "said": ""} for name in wanted}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        marked = [item for item in items if item.get_closest_marker("exercise")]
        items[:] = [item for item in marked if item.get_closest_marker("exercise").args[0] in self.found]
        for item in items:
            self.found[item.get_closest_marker("exercise").args[0]]["tests"] += 1

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> None:
        exercise = self.found[item.get_closest_marker("exercise").args[0]]
        if call.excinfo is not None:
            if not exercise["test"]:
                exercise["test"], exercise["said"] = item.name, call.excinfo.exconly()
        elif call.when == "call":
            exercise["passed"] += 1


RECORD = "exercises.json"


def record(number: int, found: dict[str, dict]) -> None:
    """Keep which exercises pass, each with a hash of what was written for it, in runs/LESSON/exercises.json."""
    path = ROOT / "runs" / exercise_folder(number).name / RECORD
    passed = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, written in solutions(exercises_of(number)).items():
        if name in found:
            passed[name] = hashlib.sha256(written.encode()).hexdigest() if solved(found[name]) else ""
    write_atomically(path, json.dumps(passed, indent=1).encode())


def check(number: int, only: str | None = None) -> dict[str, dict]:
    """Run the exercises' tests on the code as it stands here: exercise → {"passed", "tests", "test", "said", "started"}.

    Raises CourseError for an exercise that the lesson does not have, and when the tests can't be read.
    """
    exercises = {exercise.number: exercise for exercise in exercises_of(number)}
    if only and only not in exercises:
        raise CourseError(f"lesson {number} has no exercise {only}; choose one of {', '.join(exercises)}")
    tally = Tally([only] if only else list(exercises))
    tests = [str(path) for path in exercise_tests(exercise_folder(number))]
    options = ["-q", "--tb=no", "-pno:cacheprovider", "-pno:xdist", "-pno:nbval", f"--rootdir={ROOT}"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = pytest.main([*options, "-c", str(ROOT / "pyproject.toml"), *tests], plugins=[tally])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise CourseError(f"the tests did not run ({status!r}):\n{said.getvalue()[-3000:]}")
    for name, found in tally.found.items():
        found["started"] = not untouched(exercises[name].path.read_text(encoding="utf-8"), exercises[name])
    return tally.found


def solved(found: dict) -> bool:
    """True for an exercise that has tests and passes all of them."""
    return 0 < found["tests"] == found["passed"]


def show(found: dict[str, dict], exercises: dict[str, Exercise], pages: dict, console: Console) -> None:
    """A line for every exercise; for one that was begun and fails, the first test that failed and a hint."""
    width = max(len(exercises[name].title) for name in found)
    for name, each in found.items():
        line = f"{name:>5}  {escape(exercises[name].title):{width}}  "
        place = exercises[name].path.relative_to(ROOT)
        if solved(each):
            console.print(f"[green]✓[/] {line}[dim]{each['tests']} tests pass[/]", highlight=False)
        elif not each["started"]:
            console.print(f"· {line}[dim]not started: {place}[/]", highlight=False, soft_wrap=True)
        else:
            console.print(f"[red]✗[/] {line}{each['passed']} of {each['tests']} tests pass", highlight=False)
            for text in (each["test"], *[text for text in each["said"].splitlines() if text.strip()][:6]):
                console.print(f"         [dim]{escape(text)}[/]", highlight=False, soft_wrap=True)
            if hint := pages.get(name, {}).get("hint"):
                console.print(f"         hint: {escape(hint)}", highlight=False, soft_wrap=True)
    console.print(f"{sum(map(solved, found.values()))} of {len(found)} exercises solved")


@command_line()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lesson", type=int, help="the lesson's number")
    parser.add_argument("--exercise", help="only this one, as 1.3")
    given = parser.parse_args()
    found = check(given.lesson, given.exercise)
    folder = exercise_folder(given.lesson)
    record(given.lesson, found)
    show(found, {exercise.number: exercise for exercise in exercises_of(given.lesson)}, listed(folder), Console())
    return 0 if all(map(solved, found.values())) else 1


if __name__ == "__main__":
    sys.exit(main())
