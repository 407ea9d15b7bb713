"""`make check`: tell which exercises of a lesson are solved, and give a hint for those that are not.

python -m shared.teaching.check 1 [--exercise 1.3] [--seed 5]
"""

import argparse
import contextlib
import functools
import hashlib
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from rich.console import Console
from rich.markup import escape

from shared.atomic import write_atomically
from shared.cli import command_line, parse_whole_number
from shared.course.exercises import Exercise
from shared.course.lesson import ROOT
from shared.course.records import DamagedRecord, read_json
from shared.errors import CourseError
from shared.teaching.exercise_result import ExerciseResult
from shared.teaching.markers import (
    ExerciseInfo,
    exercise_folder,
    exercise_table,
    exercise_tests,
    exercises_of,
    is_untouched,
    solutions,
)

RECORD = "exercises.json"
MESSAGE_LINES = 6


class CheckPlugin:
    """A pytest plugin that runs the tests of some exercises and counts, for each exercise, those that pass."""

    def __init__(self, numbers: Sequence[str]):
        self.results = {number: ExerciseResult() for number in numbers}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if exercise_number(item) in self.results]
        for item in items:
            self.results[exercise_number(item)].tests += 1

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> None:
        result = self.results[exercise_number(item)]
        if call.excinfo is not None:
            if not result.failed_test:
                result.failed_test, result.message = item.name, call.excinfo.exconly()
        elif call.when == "call":
            result.passed += 1


def exercise_number(item: pytest.Item) -> str:
    """Return the exercise that a test grades, "" for a test that grades none."""
    marker = item.get_closest_marker("exercise")
    return marker.args[0] if marker else ""


@contextlib.contextmanager
def fresh_inputs(seed: int | None) -> Iterator[None]:
    """Let the tests draw other random inputs than those that students see: their seeds are combined with `seed`."""
    original = torch.manual_seed
    if seed is None:
        yield
        return
    torch.manual_seed = lambda value: original(hash((seed, int(value))) % 2**63)  # type: ignore[assignment]
    try:
        torch.manual_seed(0)  # for inputs that are drawn while the tests are collected
        yield
    finally:
        torch.manual_seed = original


def check(lesson: int, only: str | None = None, seed: int | None = None) -> dict[str, ExerciseResult]:
    """Run the tests of a lesson's exercises, or of one, on the code in this folder. Return exercise → result.

    seed  the tests draw other random inputs than with None

    Raises CourseError for an exercise that the lesson does not have, and when the tests cannot run.
    """
    numbers = [exercise.number for exercise in exercises_of(lesson)]
    if only and only not in numbers:
        raise CourseError(f"lesson {lesson} has no exercise {only}; choose one of {', '.join(numbers)}")
    plugin = CheckPlugin([only] if only else numbers)
    tests = [str(path) for path in exercise_tests(exercise_folder(lesson))]
    arguments = ["-q", "--tb=no", "-pno:cacheprovider", "-pno:xdist", "-pno:nbval", f"--rootdir={ROOT}"]
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), fresh_inputs(seed):
        status = pytest.main([*arguments, "-c", str(ROOT / "pyproject.toml"), *tests], plugins=[plugin])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise CourseError(f"the tests did not run ({status!r}):\n{output.getvalue()[-3000:]}")
    return plugin.results


def read_hashes(path: Path) -> dict[str, str]:
    """Return the hashes of the record of checked exercises; {} when it is missing or damaged, until the next check."""
    try:
        content = read_json(path)
    except (FileNotFoundError, DamagedRecord):
        return {}
    return content if isinstance(content, dict) else {}


def save_record(lesson: int, results: Mapping[str, ExerciseResult]) -> None:
    """Write which exercises pass, each with a hash of its code, to runs/LESSON/exercises.json."""
    path = ROOT / "runs" / exercise_folder(lesson).name / RECORD
    hashes = read_hashes(path)
    for number, code in solutions(exercises_of(lesson)).items():
        if number in results:
            hashes[number] = hashlib.sha256(code.encode()).hexdigest() if results[number].solved else ""
    write_atomically(path, json.dumps(hashes, indent=1).encode())


def show(
    results: Mapping[str, ExerciseResult],
    exercises: Mapping[str, Exercise],
    table: Mapping[str, ExerciseInfo],
    console: Console,
) -> None:
    """Print one line per exercise; for one that was started and fails, also the first failed test and a hint."""
    width = max(len(exercises[number].title) for number in results)
    for number, result in results.items():
        exercise = exercises[number]
        line = f"{number:>5}  {escape(exercise.title):{width}}  "
        if result.solved:
            console.print(f"[green]✓[/] {line}[dim]{result.tests} tests pass[/]", highlight=False)
        elif is_untouched(exercise.path.read_text(encoding="utf-8"), exercise):
            place = exercise.path.relative_to(ROOT)
            console.print(f"· {line}[dim]not started: {place}[/]", highlight=False, soft_wrap=True)
        else:
            console.print(f"[red]✗[/] {line}{result.passed} of {result.tests} tests pass", highlight=False)
            message = [text for text in result.message.splitlines() if text.strip()]
            for text in (result.failed_test, *message[:MESSAGE_LINES]):
                console.print(f"         [dim]{escape(text)}[/]", highlight=False, soft_wrap=True)
            if number in table and table[number].hint:
                console.print(f"         hint: {escape(table[number].hint)}", highlight=False, soft_wrap=True)
    console.print(f"{sum(result.solved for result in results.values())} of {len(results)} exercises solved")


@command_line()
def main() -> int:
    parser = argparse.ArgumentParser(description="Check which exercises of a lesson are solved, with hints.")
    parser.add_argument("lesson", type=functools.partial(parse_whole_number, "lesson"), help="the lesson's number")
    parser.add_argument("--exercise", help="only this exercise, such as 1.3")
    parser.add_argument("--seed", type=int, help="draw other random inputs for the tests")
    options = parser.parse_args()
    results = check(options.lesson, options.exercise, options.seed)
    save_record(options.lesson, results)
    exercises = {exercise.number: exercise for exercise in exercises_of(options.lesson)}
    show(results, exercises, exercise_table(exercise_folder(options.lesson)), Console())
    return 0 if all(result.solved for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
