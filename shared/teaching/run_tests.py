"""Run a lesson's exercise tests against one submission, with the student's code in a process per exercise."""

import atexit
import contextlib
import io
import re
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from _pytest.fixtures import SubRequest

from shared.course.exercises import Exercise
from shared.course.lesson import ROOT
from shared.errors import CourseError
from shared.teaching.check import exercise_number, fresh_inputs
from shared.teaching.exercise_result import ExerciseResult
from shared.teaching.grading_copy import write_grading_copy
from shared.teaching.isolation.sandbox import Limits
from shared.teaching.isolation.student_process import ForkServer, StudentProcess
from shared.teaching.markers import exercise_folder, exercise_tests, exercises_of, is_untouched, solutions
from shared.teaching.submission import Submission

NOT_STARTED, NOT_GRADED = "not started", "not graded"
TEST_TIMEOUT_SECONDS = 900  # for the test itself, whatever a student's code returns
MESSAGE_LINES, MESSAGE_LENGTH = 3, 400
SEEDS_TRIED = 4
ERROR_LENGTH = 200  # of an error that a student's code raised, which could carry any text
MIN_CODE_LENGTH = 15  # characters of a line of code without spaces, from which on it is recognized in a message
HIDDEN_MESSAGE = "its message repeats code of the course, so it is left out"
OPEN_EXERCISE = re.compile(r"exercise (\d+\.\d+): ")


@cache
def fork_server() -> ForkServer:
    """Return the fork server of this process, started on first use and stopped at exit."""
    server = ForkServer()
    atexit.register(server.close)
    return server


@dataclass(frozen=True)
class Conditions:
    """What every submission of a class is graded under."""

    limits: Limits
    required: Mapping[str, frozenset[str]]
    """Exercise → the others that are solved beside it."""
    seed: int | None = None
    """A secret number from which the tests draw their inputs; None for the inputs that students see."""


class GradingPlugin:
    """A pytest plugin that runs the exercises' tests against one submission and records the results."""

    def __init__(self, lesson: int, submission: Submission, conditions: Conditions, only: Collection[str] | None):
        """`only` names the exercises that are graded; all when None."""
        self.lesson, self.submission, self.conditions = lesson, submission, conditions
        self.code_lines = solution_lines(lesson)
        self.exercises = {exercise.number: exercise for exercise in exercises_of(lesson)}
        self.results = {number: ExerciseResult() for number in self.exercises}
        self.process: StudentProcess | None = None
        self.running = ""
        """The exercise whose code `process` runs."""
        self.folder: tempfile.TemporaryDirectory | None = None
        for number, exercise in self.exercises.items():
            path = str(exercise.path.relative_to(ROOT))
            if path in submission.problems:
                self.results[number].message = f"{exercise.path.name} {submission.problems[path]}"
            elif only is not None and number not in only:
                self.results[number].message = NOT_GRADED
            elif is_untouched(submission.files[path], exercise):
                self.results[number].message = NOT_STARTED

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the tests of the exercises that were handed in, grouped by exercise."""
        marked = [(item, exercise_number(item)) for item in items if exercise_number(item)]
        for _, number in marked:
            self.results[number].tests += 1
        order = list(self.exercises)
        marked.sort(key=lambda pair: order.index(pair[1]))
        items[:] = [item for item, number in marked if not self.results[number].message]

    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef, request: SubRequest) -> Any:
        """Replace the `student` fixture by the process of the exercise that the test grades."""
        if fixturedef.argname != "student":
            return None
        process = self._process_for(exercise_number(request.node))
        fixturedef.cached_result = (process, fixturedef.cache_key(request), None)
        return process

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> None:
        """Count a test as passed when it was called and raised nothing: not a skip, not an expected failure."""
        result = self.results[exercise_number(item)]
        if call.excinfo is not None:
            if not result.failed_test:
                result.failed_test, result.message = item.name, shown_message(call.excinfo, self.code_lines)
        elif call.when == "call":
            result.passed += 1

    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        if nextitem is None or exercise_number(nextitem) != exercise_number(item):
            self.stop_process()

    def stop_process(self) -> None:
        """End the process of the exercise that was graded, and delete its copy of the course."""
        if self.process is not None:
            usage = self.process.stop()
            result = self.results[self.running]
            result.seconds, result.memory_mb = usage["seconds"], usage["memory_mb"]
            self.process = None
        if self.folder is not None:
            self.folder.cleanup()
            self.folder = None

    def _process_for(self, number: str) -> StudentProcess:
        if self.process is None:
            exercise = self.exercises[number]
            self.running, self.folder = number, tempfile.TemporaryDirectory(prefix="grading-")
            course_copy = Path(self.folder.name)
            submitted = self.submission.files[str(exercise.path.relative_to(ROOT))]
            exercises = list(self.exercises.values())
            write_grading_copy(course_copy, exercise, submitted, exercises, self.conditions.required[number])
            lesson = exercise_folder(self.lesson).name
            modules = _shape_checked_modules(exercise, submitted)
            self.process = StudentProcess(fork_server(), course_copy, lesson, modules, self.conditions.limits)
        return self.process


def _shape_checked_modules(exercise: Exercise, text: str) -> list[str]:
    """Return the module of an exercise if its file annotates tensor shapes."""
    module = ".".join(exercise.path.relative_to(ROOT).with_suffix("").parts)
    return [module] if "jaxtyping" in text else []


def shown_message(error: pytest.ExceptionInfo, code_lines: Collection[str] = ()) -> str:
    """Return the error as a short line without characters that a terminal interprets, and without the course's code.

    code_lines  lines of solutions without spaces; an error that repeats one could pass it on to the student
    """
    text = str(error.value).strip() or type(error.value).__name__
    length = MESSAGE_LENGTH
    if not isinstance(error.value, AssertionError):
        text, length = f"{type(error.value).__name__}: {text}", ERROR_LENGTH
    squeezed = "".join(text.split())
    if any(line in squeezed for line in code_lines):
        return f"{type(error.value).__name__}: {HIDDEN_MESSAGE}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return printable("; ".join(lines[:MESSAGE_LINES]))[:length]


@cache
def solution_lines(lesson: int) -> frozenset[str]:
    """Return the lines of a lesson's solutions without spaces; not the short ones, which any error may repeat."""
    lines = (line for code in solutions(exercises_of(lesson)).values() for line in code.splitlines())
    squeezed = ("".join(line.split()) for line in lines if not line.strip().startswith("#"))
    return frozenset(line for line in squeezed if len(line) >= MIN_CODE_LENGTH)


def printable(text: str) -> str:
    """Return a text with a question mark for each character that a terminal could interpret."""
    return "".join(character if character.isprintable() else "?" for character in text)


def run_tests(
    lesson: int, submission: Submission, conditions: Conditions, only: Collection[str] | None = None
) -> dict[str, ExerciseResult]:
    """Grade one submission, exercise by exercise. Return exercise → result.

    The student's code runs in other processes; only tensors and plain values come from there.
    Raises CourseError when pytest cannot run the tests.
    """
    plugin = GradingPlugin(lesson, submission, conditions, only)
    tests = [str(path) for path in exercise_tests(exercise_folder(lesson))]
    disabled = [f"-pno:{name}" for name in ("cacheprovider", "xdist", "nbval", "unraisableexception")]
    arguments = ["-q", "--tb=no", *disabled, "-c", str(ROOT / "pyproject.toml"), f"--rootdir={ROOT}"]
    arguments += ["-o", f"timeout={TEST_TIMEOUT_SECONDS}", *tests]
    output = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(output),
            fresh_inputs(conditions.seed),
        ):
            status = pytest.main(arguments, plugins=[plugin])
    finally:
        plugin.stop_process()
    if status == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise CourseError(f"pytest ended with {status!r}:\n{output.getvalue()[-2000:]}")
    return plugin.results


def solution_submission(lesson: int) -> Submission:
    """Return the course's own solution as a submission."""
    paths = {exercise.path for exercise in exercises_of(lesson)}
    files = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}
    return Submission("the solution", files)


def find_conditions(lesson: int, limits: Limits, seed: int) -> Conditions:
    """Return the conditions for a class, with fresh inputs under which the solution passes.

    A test whose property holds for most inputs only can fail with some: then the next seed is tried, and after
    SEEDS_TRIED of them the inputs that students see. Raises CourseError when the solution fails with those too.
    """
    for attempt in range(SEEDS_TRIED):
        with contextlib.suppress(CourseError):
            return conditions_with(lesson, limits, seed + attempt)
    return conditions_with(lesson, limits, None)


def conditions_with(lesson: int, limits: Limits, seed: int | None) -> Conditions:
    """Return the conditions under which the solution passes, with as few solved exercises beside each as possible.

    An exercise that fails because another one is open needs that one; one that fails otherwise needs all.

    Raises CourseError when the solution itself does not pass: then no grade from this machine would be valid.
    """
    numbers = [exercise.number for exercise in exercises_of(lesson)]
    solution, remaining = solution_submission(lesson), numbers
    required: dict[str, frozenset[str]] = dict.fromkeys(numbers, frozenset())
    while True:
        results = run_tests(lesson, solution, Conditions(limits, required, seed), remaining)
        remaining = [number for number in remaining if not results[number].solved]
        if not remaining:
            return Conditions(limits, required, seed)
        if any(len(required[number]) == len(numbers) for number in remaining):
            failed = ((number, results[number]) for number in remaining)
            failures = ", ".join(f"{number} ({each.failed_test}: {each.message})" for number, each in failed)
            raise CourseError(f"the solution itself does not pass its tests on this machine: {failures}")
        for number in remaining:
            named = set(OPEN_EXERCISE.findall(results[number].message)) & set(numbers)
            required[number] |= named - required[number] - {number} or set(numbers)
