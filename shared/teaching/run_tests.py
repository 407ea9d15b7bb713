"""Grade one submission: pristine tests here, the student's code in a process of its own, one for each exercise."""

import atexit
import contextlib
import io
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from shared.course.exercises import Exercise
from shared.course.lesson import ROOT
from shared.errors import CourseError
from shared.teaching.grading_copy import lay_out
from shared.teaching.isolation.sandbox import Limits
from shared.teaching.isolation.student_process import Nursery, StudentProcess
from shared.teaching.markers import exercise_folder, exercise_tests, exercises_of, untouched
from shared.teaching.submission import Submission

NOT_STARTED = "not started"
SECONDS_OF_A_TEST = 900  # that the tests themselves may take on whatever a student's code gives back


@cache
def nursery() -> Nursery:
    """The one nursery of this process, for as long as it lives."""
    started = Nursery()
    atexit.register(started.close)
    return started


class Examination:
    """A plugin for pytest that runs the exercises' tests against one submission, and writes down how each went."""

    def __init__(self, number: int, submission: Submission, limits: Limits, needed: Mapping[str, frozenset[str]]):
        self.number, self.submission, self.limits, self.needed = number, submission, limits, needed
        self.exercises = {exercise.number: exercise for exercise in exercises_of(number)}
        self.found = {name: _blank() for name in self.exercises}
        self.process: StudentProcess | None = None
        self.of: str | None = None
        self.folder: tempfile.TemporaryDirectory | None = None
        for name, exercise in self.exercises.items():
            path = str(exercise.path.relative_to(ROOT))
            if path in submission.problems:
                self.found[name]["said"] = f"{exercise.path.name} {submission.problems[path]}"
            elif untouched(submission.files[path], exercise):
                self.found[name]["said"] = NOT_STARTED

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the tests of the exercises that were handed in, those of an exercise together."""
        marked = [(item, _exercise_of(item)) for item in items if item.get_closest_marker("exercise")]
        for _, name in marked:
            self.found[name]["tests"] += 1
        order = list(self.exercises)
        marked.sort(key=lambda pair: order.index(pair[1]))
        items[:] = [item for item, name in marked if not self.found[name]["said"]]

    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest):
        """Where a test asks for its student, give it the process of the exercise that it grades."""
        if fixturedef.argname != "student":
            return None
        process = self._process_of(_exercise_of(request.node))
        fixturedef.cached_result = (process, fixturedef.cache_key(request), None)
        return process

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> None:
        """Count a test as passed when it was called and raised nothing at all: not a skip, not an expected failure."""
        exercise = self.found[_exercise_of(item)]
        if call.excinfo is not None:
            if not exercise["test"]:
                exercise["test"], exercise["said"] = item.name, _in_a_line(call.excinfo)
        elif call.when == "call":
            exercise["passed"] += 1

    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        if nextitem is None or _exercise_of(nextitem) != _exercise_of(item):
            self.leave()

    def leave(self) -> None:
        """End the process of the exercise that has been graded, and throw away its copy of the course."""
        if self.process is not None:
            used = self.process.stop()
            self.found[self.of] |= {key: used[key] for key in ("seconds", "memory_mb")}
            self.process = None
        if self.folder is not None:
            self.folder.cleanup()
            self.folder = None

    def _process_of(self, name: str) -> StudentProcess:
        if self.process is None:
            exercise = self.exercises[name]
            self.of, self.folder = name, tempfile.TemporaryDirectory(prefix="grading-")
            tree = Path(self.folder.name)
            text = self.submission.files[str(exercise.path.relative_to(ROOT))]
            lay_out(tree, self.number, exercise, text, list(self.exercises.values()), self.needed[name])
            lesson = exercise_folder(self.number).name
            self.process = StudentProcess(nursery(), tree, lesson, _typed(exercise, text), self.limits)
        return self.process


def _blank() -> dict:
    return {"passed": 0, "tests": 0, "test": "", "said": "", "seconds": 0.0, "memory_mb": 0}


def _exercise_of(item: pytest.Item) -> str:
    return item.get_closest_marker("exercise").args[0]


def _typed(exercise: Exercise, text: str) -> list[str]:
    """The module of an exercise, where its file names shapes."""
    module = ".".join(exercise.path.relative_to(ROOT).with_suffix("").parts)
    return [module] if "jaxtyping" in text else []


def _in_a_line(error: pytest.ExceptionInfo) -> str:
    """What went wrong, short, and with nothing in it that a terminal would obey."""
    text = str(error.value).strip() or type(error.value).__name__
    if not isinstance(error.value, AssertionError):
        text = f"{type(error.value).__name__}: {text}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "".join(letter if letter.isprintable() else "?" for letter in "; ".join(lines[:3]))[:400]


def examine(
    number: int, submission: Submission, limits: Limits, needed: Mapping[str, frozenset[str]]
) -> dict[str, dict]:
    """Grade one submission, exercise by exercise: {"passed", "tests", "test", "said", "seconds", "memory_mb"}.

    `test` is the first that failed and `said` is why. Nothing of the student's is run, read or believed in this process
    but tensors and plain values.
    """
    examination = Examination(number, submission, limits, needed)
    tests = [str(path) for path in exercise_tests(exercise_folder(number))]
    options = [
        "-q",
        "--tb=no",
        *(f"-pno:{name}" for name in ("cacheprovider", "xdist", "nbval", "unraisableexception")),
    ]
    options += ["-c", str(ROOT / "pyproject.toml"), f"--rootdir={ROOT}", "-o", f"timeout={SECONDS_OF_A_TEST}"]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = pytest.main([*options, *tests], plugins=[examination])
    finally:
        examination.leave()
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise CourseError(f"pytest ended with {status!r}:\n{said.getvalue()[-2000:]}")
    return examination.found


def solution(number: int) -> Submission:
    """What a student would hand in who knew everything."""
    paths = {exercise.path for exercise in exercises_of(number)}
    files = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}
    return Submission("the solution", files)


def right(found: Mapping) -> bool:
    """True for an exercise that has tests and passes all of them."""
    return 0 < found["tests"] == found["passed"]


def calibrate(number: int, limits: Limits) -> dict[str, frozenset[str]]:
    """Which other exercises each one needs: none where its solution passes without them, else all.

    Raises CourseError when the solution itself does not pass: then no grade of this machine would be worth anything.
    """
    every = [exercise.number for exercise in exercises_of(number)]
    alone = examine(number, solution(number), limits, dict.fromkeys(every, frozenset()))
    needed = {name: frozenset() if right(alone[name]) else frozenset(every) for name in every}
    if any(needed.values()):
        found = examine(number, solution(number), limits, needed)
        if wrong := [f"{name} ({each['test']}: {each['said']})" for name, each in found.items() if not right(each)]:
            raise CourseError(f"the solution itself does not pass its tests here: {', '.join(wrong)}")
    return needed
