"""Run the tests of exercises against every planted bug, in one process, and write down which are caught."""

import contextlib
import io
import signal
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module

import pytest
from _pytest.runner import runtestprotocol

from shared.course.exercises import Exercise
from shared.course.lesson import ROOT
from shared.errors import CourseError
from shared.teaching.markers import exercise_folder, exercise_tests, exercises_of
from shared.teaching.mutation.mutants import Mutant, mutants

CPU_SECONDS = 10.0  # that the tests may work on one mutant; an endless loop is a bug that is noticed
EQUIVALENT = "equivalent_mutants.toml"


@dataclass(frozen=True)
class Outcome:
    """One planted bug and what became of it; `by` is the test that caught it, "" for a survivor."""

    exercise: Exercise
    mutant: Mutant
    by: str
    said: str = ""

    @property
    def place(self) -> str:
        return f"{self.exercise.path.relative_to(ROOT)}:{self.mutant.line}"


class TooSlow(BaseException):
    """Raised in the midst of a test that works too long."""


def planted(number: int, sample: int | None = None) -> list[tuple[Exercise, Mutant]]:
    """Every mutant of a lesson's exercises but the known equivalents, or about `sample` of them, spread evenly.

    Raises CourseError for a known equivalent that no mutant is any more.
    """
    known = equivalents(number)
    every, used = [], set()
    for exercise in exercises_of(number):
        for mutant in mutants(exercise.path.read_text(encoding="utf-8"), exercise.first, exercise.last):
            key = (exercise.number, mutant.code)
            if key in known:
                used.add(key)
            else:
                every.append((exercise, mutant))
    if stale := sorted(known - used):
        raise CourseError(f"lesson {number}: {EQUIVALENT} names what is no mutant any more: {stale}")
    if sample is None or sample >= len(every):
        return every
    return [every[place * len(every) // sample] for place in range(sample)]


def equivalents(number: int) -> set[tuple[str, str]]:
    """The mutants that are no bugs, each with the reason written beside it: (exercise, the changed line)."""
    path = exercise_folder(number) / "tests" / EQUIVALENT
    if not path.exists():
        return set()
    listed = tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
    if unexplained := [each for each in listed if not each.get("reason")]:
        raise CourseError(f"{path}: without a reason: {unexplained}")
    return {(each["exercise"], each["line"]) for each in listed}


class Hunt:
    """A plugin for pytest that collects the exercises' tests once, and runs them for each mutant until one fails."""

    def __init__(self, prey: Sequence[tuple[Exercise, Mutant]], tell):
        self.prey, self.tell, self.found = prey, tell, []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        tests: dict[str, list[pytest.Item]] = {}
        for item in session.items:
            if marker := item.get_closest_marker("exercise"):
                tests.setdefault(marker.args[0], []).append(item)
        for exercise in {exercise.number: exercise for exercise, _ in self.prey}.values():
            if by := self._first_failure(tests[exercise.number]):
                raise CourseError(f"exercise {exercise.number} fails without a planted bug: {by}")
        for exercise, mutant in self.prey:
            module = import_module(".".join(exercise.path.relative_to(ROOT).with_suffix("").parts))
            original = exercise.path.read_text(encoding="utf-8")
            try:
                _execute(module, mutant.text)
                by, said = self._first_failure(tests[exercise.number]) or ("", "")
            except Exception as error:
                by, said = "import", repr(error)
            finally:
                _execute(module, original)
            # A value that is no tensor has no gradient to detach: that is no bug to plant.
            if "has no attribute 'detach'" not in said:
                self.found.append(Outcome(exercise, mutant, by, said))
            self.tell(exercise, mutant, by)
        return True

    def _first_failure(self, items: Sequence[pytest.Item]) -> tuple[str, str] | None:
        with _time_limit():
            for item in items:
                for report in runtestprotocol(item, log=False, nextitem=None):
                    if report.failed:
                        return item.name, report.longreprtext
        return None


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def too_slow(number, frame):
        raise TooSlow

    before = signal.signal(signal.SIGVTALRM, too_slow)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _execute(module, text: str) -> None:
    """Give a module other code, as its own loader would (which also checks shapes, where the tests do)."""
    code = module.__spec__.loader.source_to_code(text.encode(), module.__file__)
    exec(code, module.__dict__)


def hunt(
    numbers: Sequence[int], sample: int | None = None, tell=lambda exercise, mutant, by: None
) -> dict[int, list[Outcome]]:
    """Plant the bugs of these lessons, one after another; lesson → what became of each.

    Raises CourseError when an exercise's tests fail without any.
    """
    prey = {number: planted(number, sample) for number in numbers}
    plugin = Hunt([each for number in numbers for each in prey[number]], tell)
    tests = [str(path) for number in numbers for path in exercise_tests(exercise_folder(number))]
    options = ["-q", "--tb=short", f"--rootdir={ROOT}", "-c", str(ROOT / "pyproject.toml")]
    options += [f"-pno:{name}" for name in ("cacheprovider", "xdist", "nbval", "timeout", "unraisableexception")]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = pytest.main([*options, *tests], plugins=[plugin])
    if status != pytest.ExitCode.OK:
        raise CourseError(f"the tests did not run ({status!r}):\n{said.getvalue()[-3000:]}")
    return {
        number: [each for each in plugin.found if each.exercise.number.split(".")[0] == str(number)]
        for number in numbers
    }
