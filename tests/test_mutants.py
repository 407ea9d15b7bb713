"""With the solutions taken out, the tests of each exercise fail, each because the exercise is not implemented."""

import contextlib
import os
import re
import shutil
import subprocess

import pytest

from shared.course.exercises import find_exercises, without_solutions
from shared.course.lesson import ROOT, lesson_entries, lesson_folder
from shared.testing import PYTEST

BUILT = [entry.number for entry in lesson_entries() if lesson_folder(entry.number)]


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A copy of the course for all lessons: what Python has compiled for one is there for the next."""
    root = tmp_path_factory.mktemp("course")
    ignored = shutil.ignore_patterns("__pycache__", "cache", "checkpoints")
    for top in ("shared", "data", "lessons", "apps"):
        shutil.copytree(ROOT / top, root / top, ignore=ignored)
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copyfile(ROOT / name, root / name)
    return root


@contextlib.contextmanager
def stubs(course, exercises):
    """Take the solutions out of the copy, and put them back at the end."""
    numbers = {exercise.number for exercise in exercises}
    originals = {course / exercise.path.relative_to(ROOT): exercise.path.read_bytes() for exercise in exercises}
    try:
        for path, original in originals.items():
            path.write_text(without_solutions(original.decode(), numbers), encoding="utf-8")
        yield numbers
    finally:
        for path, original in originals.items():
            path.write_bytes(original)


@pytest.mark.parametrize("number", BUILT)
def test_stubs_fail_with_their_own_error(number, course):
    folder = lesson_folder(number)
    exercises = find_exercises(folder)
    assert exercises
    copied = course / folder.relative_to(ROOT)
    tests = [str(path.relative_to(course)) for path in copied.glob("tests/test_exercises*.py")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    with stubs(course, exercises) as numbers:
        done = subprocess.run(
            [*PYTEST, "--tb=line", "-m", "exercise", *tests],
            cwd=course,
            env=environment | {"PYTHONPATH": str(course)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert " passed" not in done.stdout.splitlines()[-1], f"a test passes without a solution:\n{done.stdout[-3000:]}"
    reasons = set(re.findall(r"NotImplementedError: exercise (\d+\.\d+)", done.stdout))
    assert reasons == numbers, done.stdout[-3000:]
    failures = int(re.search(r"(\d+) failed", done.stdout)[1])
    errors = re.findall(r"NotImplementedError: exercise", done.stdout)
    assert len(errors) >= failures, "a test failed for another reason"
