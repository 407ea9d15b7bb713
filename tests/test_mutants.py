"""With the solutions taken out, the tests of each exercise fail, each because the exercise is not implemented."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from shared.course.exercises import find_exercises, without_solutions
from shared.course.lesson import ROOT, lesson_entries, lesson_folder

BUILT = [entry.number for entry in lesson_entries() if lesson_folder(entry.number)]


@pytest.mark.parametrize("number", BUILT)
def test_stubs_fail_with_their_own_error(number, tmp_path):
    folder = lesson_folder(number)
    exercises = find_exercises(folder)
    assert exercises
    numbers = {exercise.number for exercise in exercises}
    ignored = shutil.ignore_patterns("__pycache__", "cache", "checkpoints")
    for top in ("shared", "data", "lessons", "apps"):
        shutil.copytree(ROOT / top, tmp_path / top, ignore=ignored)
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    for path in {exercise.path for exercise in exercises}:
        stub = tmp_path / path.relative_to(ROOT)
        stub.write_text(without_solutions(stub.read_text(encoding="utf-8"), numbers), encoding="utf-8")

    copied = tmp_path / folder.relative_to(ROOT)
    tests = [str(path.relative_to(tmp_path)) for path in copied.glob("tests/test_exercises*.py")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", "-m", "exercise", *tests],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(tmp_path)},
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
