"""Run the tests of exercises against every mutant of their code, in one process, and record which are caught."""

import contextlib
import io
import signal
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import pytest
from _pytest.runner import runtestprotocol

from shared.course.exercises import Exercise
from shared.course.lesson import ROOT
from shared.errors import CourseError
from shared.teaching.check import exercise_number
from shared.teaching.markers import exercise_folder, exercise_tests, exercises_of
from shared.teaching.mutation.mutants import Mutant, generate_mutants
from shared.teaching.mutation.tensor_mutants import NOT_APPLICABLE

CPU_SECONDS = 10.0  # for the tests of one mutant; an endless loop counts as caught
EQUIVALENT_MUTANTS = "equivalent_mutants.toml"


@dataclass(frozen=True)
class Outcome:
    """What became of one planted bug."""

    exercise: Exercise
    mutant: Mutant
    caught_by: str
    """The test that failed; "" for a survivor."""
    message: str = ""

    @property
    def place(self) -> str:
        return f"{self.exercise.path.relative_to(ROOT)}:{self.mutant.line}"


class TooSlow(BaseException):
    """Raised within a test that takes too much CPU time."""


def lesson_mutants(lesson: int, sample: int | None = None) -> list[tuple[Exercise, Mutant]]:
    """Return every mutant of a lesson's exercises without the known equivalents, or `sample` of them, evenly spread.

    Raises CourseError for a known equivalent that no longer is a mutant.
    """
    equivalents = equivalent_mutants(lesson)
    mutants: list[tuple[Exercise, Mutant]] = []
    used = set()
    for exercise in exercises_of(lesson):
        for mutant in generate_mutants(exercise.path.read_text(encoding="utf-8"), exercise.first, exercise.last):
            key = (exercise.number, mutant.code)
            if key in equivalents:
                used.add(key)
            else:
                mutants.append((exercise, mutant))
    if outdated := sorted(equivalents - used):
        raise CourseError(f"lesson {lesson}: {EQUIVALENT_MUTANTS} lists what is no longer a mutant: {outdated}")
    if sample is None or sample >= len(mutants):
        return mutants
    return [mutants[place * len(mutants) // sample] for place in range(sample)]


def equivalent_mutants(lesson: int) -> set[tuple[str, str]]:
    """Return the mutants that are no bugs as (exercise, changed line); the file states a reason for each."""
    path = exercise_folder(lesson) / "tests" / EQUIVALENT_MUTANTS
    if not path.exists():
        return set()
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
    if unexplained := [entry for entry in entries if not entry.get("reason")]:
        raise CourseError(f"{path}: without a reason: {unexplained}")
    return {(entry["exercise"], entry["line"]) for entry in entries}


Report = Callable[[Outcome], None]
"""Called after each mutant."""


class MutationPlugin:
    """A pytest plugin that collects the exercises' tests once, and runs them for each mutant until one fails."""

    def __init__(self, mutants: Sequence[tuple[Exercise, Mutant]], report: Report, check_solutions: bool):
        self.mutants, self.report, self.check_solutions = mutants, report, check_solutions
        self.outcomes: list[Outcome] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        tests: dict[str, list[pytest.Item]] = {}
        for item in session.items:
            if number := exercise_number(item):
                tests.setdefault(number, []).append(item)
        for number in dict.fromkeys(exercise.number for exercise, _ in self.mutants):
            if self.check_solutions and (failure := _first_failure(tests[number])):
                raise CourseError(f"exercise {number} fails without a planted bug: {failure}")
        planted: Exercise | None = None
        try:
            for exercise, mutant in self.mutants:
                if planted and planted.path != exercise.path:
                    _restore(planted)
                planted = exercise
                outcome = _test_mutant(exercise, mutant, tests[exercise.number])
                if not any(message in outcome.message for message in NOT_APPLICABLE):
                    self.outcomes.append(outcome)
                self.report(outcome)
        finally:
            if planted:
                _restore(planted)
        return True


def _module(exercise: Exercise) -> ModuleType:
    return import_module(".".join(exercise.path.relative_to(ROOT).with_suffix("").parts))


def _restore(exercise: Exercise) -> None:
    """Execute the module of an exercise as it is in its file."""
    _execute(_module(exercise), exercise.path.read_text(encoding="utf-8"))


def _test_mutant(exercise: Exercise, mutant: Mutant, tests: Sequence[pytest.Item]) -> Outcome:
    """Run an exercise's tests with the mutant in its module, which stays there until another text is executed."""
    try:
        _execute(_module(exercise), mutant.text)
        caught_by, message = _first_failure(tests) or ("", "")
    except Exception as error:
        caught_by, message = "import", repr(error)
    return Outcome(exercise, mutant, caught_by, message)


def _first_failure(items: Sequence[pytest.Item]) -> tuple[str, str] | None:
    """Run tests until one fails, and return its name and message."""
    with _cpu_limit():
        for item in items:
            for report in runtestprotocol(item, log=False, nextitem=None):
                if report.failed:
                    return item.name, report.longreprtext
    return None


@contextlib.contextmanager
def _cpu_limit() -> Iterator[None]:
    def stop(number, frame):
        raise TooSlow

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _execute(module: ModuleType, text: str) -> None:
    """Replace a module's code, compiled by its own loader (which also checks shapes when the tests do)."""
    loader = module.__spec__.loader  # type: ignore[union-attr]
    code = loader.source_to_code(text.encode(), module.__file__)  # type: ignore[union-attr]
    exec(code, module.__dict__)


def run_mutants(
    lessons: Sequence[int], sample: int | None = None, report: Report = lambda outcome: None
) -> dict[int, list[Outcome]]:
    """Test the mutants of some lessons, one after another. Return lesson → outcome of each mutant.

    Raises CourseError when an exercise's tests fail without a planted bug, and when the tests cannot run.
    """
    mutants = [entry for lesson in lessons for entry in lesson_mutants(lesson, sample)]
    return run_planted(lessons, mutants, report)


def run_planted(
    lessons: Sequence[int],
    mutants: Sequence[tuple[Exercise, Mutant]],
    report: Report = lambda outcome: None,
    check_solutions: bool = True,
) -> dict[int, list[Outcome]]:
    """Test some mutants of some lessons, one after another. Return lesson → outcome of each mutant.

    check_solutions  first run the tests of each exercise without a planted bug

    Raises as `run_mutants` does.
    """
    plugin = MutationPlugin(mutants, report, check_solutions)
    tests = [str(path) for lesson in lessons for path in exercise_tests(exercise_folder(lesson))]
    arguments = ["-q", "--tb=short", f"--rootdir={ROOT}", "-c", str(ROOT / "pyproject.toml")]
    arguments += [f"-pno:{name}" for name in ("cacheprovider", "xdist", "nbval", "timeout", "unraisableexception")]
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        status = pytest.main([*arguments, *tests], plugins=[plugin])
    if status != pytest.ExitCode.OK:
        raise CourseError(f"the tests did not run ({status!r}):\n{output.getvalue()[-3000:]}")
    return {lesson: [each for each in plugin.outcomes if each.exercise.lesson == lesson] for lesson in lessons}
