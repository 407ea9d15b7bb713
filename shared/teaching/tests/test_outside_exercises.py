"""Test every command on a small course whose lesson has an exercise outside its folder, in a shared module."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared.course.lesson import ROOT
from shared.teaching.markers import merge_exercise

LESSON, OUTSIDE = "lesson_05_small", "shared/tools/merging.py"
CODE = '''"""A module with exercises of lessons 5 and 7."""

import torch


def merge(weight: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
    # exercise 5.2: merge an update into a weight
    scaled_update = update * 2.0  # the scale of the update
    return weight + scaled_update
    # end exercise


def subtract(weight: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
    # exercise 7.1: remove an update from a weight
    scaled_update = update * 2.0  # the scale of the update
    return weight - scaled_update
    # end exercise
'''
DOUBLE = """def double(x):
    # exercise 5.1: double a tensor
    return x + x
    # end exercise
"""
PAGE = """# Small

| 5.1 | double a tensor | 1 | 5 | `model.py` |
| 5.2 | merge an update into a weight | 2 | 10 | `merging.py` |
"""
TESTS = """import pytest
import torch

X, Y = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])


@pytest.mark.exercise("5.1")
def test_double(student):
    assert student("model:double", x=X).tolist() == [2.0, 4.0]


@pytest.mark.exercise("5.2")
def test_merge(student):
    assert student("shared.tools.merging:merge", weight=X, update=Y).tolist() == [7.0, 10.0]
"""
FIXTURES = f"""import pytest

from shared.course.student import Student


@pytest.fixture
def student():
    return Student("{LESSON}")
"""
ENTRIES = """[[lesson]]
number = 5
title = "Small"
kind = "Learn"
minutes = 60
"""


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A repository with the course's tools and two small lessons that have exercises in one shared module."""
    root = tmp_path_factory.mktemp("repository")
    ignored = shutil.ignore_patterns("tests", "__pycache__", "site", "training", "serving", "attention", "transformer")
    shutil.copytree(ROOT / "shared", root / "shared", ignore=ignored)
    for name in ("pyproject.toml", "conftest.py", "requirements.txt", "constraints.txt", "LICENSE", ".gitignore"):
        shutil.copyfile(ROOT / name, root / name)
    files = {
        OUTSIDE: CODE,
        "lessons/lessons.toml": ENTRIES,
        f"lessons/{LESSON}/README.md": PAGE,
        f"lessons/{LESSON}/model.py": DOUBLE,
        f"lessons/{LESSON}/exercises.toml": f'files = ["{OUTSIDE}"]\n',
        f"lessons/{LESSON}/tests/conftest.py": FIXTURES,
        f"lessons/{LESSON}/tests/test_exercises.py": TESTS,
        "lessons/lesson_07_later/exercises.toml": f'files = ["{OUTSIDE}"]\n',
        "lessons/lesson_07_later/tests/test_exercises.py": "",
    }
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def run(folder: Path, module: str, *arguments: str, status: int = 0) -> str:
    """Run a command of the copied course in `folder`, and return its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=environment | {"PYTHONPATH": str(folder)}
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def bundle(course):
    """The bundle of lesson 5, as a student gets it."""
    run(course, "shared.teaching.assign", "5")
    return course / "dist" / LESSON


def test_bundle_opens_the_exercises_of_this_and_of_later_lessons(bundle):
    text = (bundle / OUTSIDE).read_text()
    assert text.count("raise NotImplementedError") == 2 and "scaled_update" not in text
    page = (bundle / "README.md").read_text()
    assert f"(or a zip of it); `lessons/{LESSON}`, `{OUTSIDE}` are read" in page
    assert f"[`merging.py`]({OUTSIDE})" in page


def test_check_in_the_bundle_finds_the_exercise(bundle, course, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(bundle, folder)
    (folder / OUTSIDE).write_text(CODE)
    output = run(folder, "shared.teaching.check", "5", status=1)
    assert "✓   5.2" in output and "·   5.1" in output and "1 of 2 exercises solved" in output


def test_submissions_are_graded_with_the_file_outside(course, tmp_path):
    files = {
        "right": {f"lessons/{LESSON}/model.py": DOUBLE, OUTSIDE: CODE},
        "wrong": {f"lessons/{LESSON}/model.py": DOUBLE, OUTSIDE: CODE.replace("weight + scaled", "weight * scaled")},
        "incomplete": {f"lessons/{LESSON}/model.py": DOUBLE},
    }
    for name, submission in files.items():
        for path, text in submission.items():
            (tmp_path / "class" / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "class" / name / path).write_text(text)
    out = str(tmp_path / "grades")
    run(course, "shared.teaching.grade", "5", str(tmp_path / "class"), "--out", out, "--workers", "1")
    rows = {row["submission"]: row for row in csv.DictReader((tmp_path / "grades" / "grades.csv").open())}
    assert {name: (row["5.1"], row["5.2"]) for name, row in rows.items()} == {
        "right": ("1", "2"),
        "wrong": ("1", "0"),
        "incomplete": ("1", "0"),
    }
    assert "merging.py was not handed in" in (tmp_path / "grades" / "feedback" / "incomplete.md").read_text()


def test_mutants_are_planted_outside_the_lesson(course):
    output = run(course, "shared.teaching.mutation", "5", status=1)
    assert "planted bugs are caught" in output and f"  5.2  {OUTSIDE}:9  detached gradient" in output


def test_own_work_on_earlier_lessons_includes_files_outside(course):
    folder = course / "lessons" / "lesson_07_later"
    (folder / "README.md").write_text("| 7.1 | remove an update from a weight | 2 | 10 | `merging.py` |\n")
    (folder / "model.py").write_text(f"from lessons.{LESSON} import model\n")
    (course / "shared" / "tools" / "only_5.py").write_text(CODE.replace("5.2", "5.3").split("\n\n\ndef subtract")[0])
    (course / "lessons" / LESSON / "exercises.toml").write_text(f'files = ["{OUTSIDE}", "shared/tools/only_5.py"]\n')
    run(course, "shared.teaching.assign", "7", "--own")
    bundle = course / "dist" / "lesson_07_later"
    assert not (bundle / "lessons" / LESSON).exists() and not (bundle / "shared/tools/only_5.py").exists()
    assert "# exercise 7.1" in (bundle / OUTSIDE).read_text(), "the file of lesson 7's own exercise is included"
    names = f"`lessons/{LESSON}`, `shared/tools/only_5.py`"
    assert f"copy your own {names} to the same place here" in (bundle / "README.md").read_text()
    assert f"for path in lessons/{LESSON} shared/tools/only_5.py;" in (bundle / "Makefile").read_text()


def test_exercises_of_other_lessons_in_the_file_stay_solved():
    submitted = CODE.replace("return weight + scaled_update", "return update").replace(
        "weight - scaled", "weight / scaled"
    )
    merged = merge_exercise(CODE, submitted, "5.2", frozenset())
    assert "return update\n" in merged and "return weight - scaled_update" in merged
