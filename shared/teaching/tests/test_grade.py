"""Test that grading a class can be continued, grades changed submissions again, and writes consistent files."""

import csv
import io
import json
from dataclasses import replace
from datetime import date

import pytest
from rich.console import Console

from shared.teaching import grade as grading
from shared.teaching import gradebook
from shared.teaching.course_settings import Assignment
from shared.teaching.exercise_result import ExerciseResult
from shared.teaching.isolation.sandbox import Limits
from shared.teaching.markers import exercise_folder, exercise_table
from shared.teaching.submission import Submission

QUIET = Console(file=io.StringIO(), width=200)
ASSIGNMENT = Assignment("A class", {"1.1": 2, "1.2": 2.5}, None, date(2027, 3, 15), Limits())
RIGHT = ExerciseResult(passed=3, tests=3, seconds=0.1, memory_mb=100)
WRONG = replace(RIGHT, passed=2, failed_test="test_it[1]", message="AssertionError: # not **this**")
MISSING = replace(RIGHT, passed=0, message="mae.py was not handed in")


@pytest.fixture
def graded(monkeypatch):
    """The names of the submissions that were graded, without running their tests."""
    names = []

    def run_tests(lesson, submission, conditions):
        if submission.name == "stop":
            raise KeyboardInterrupt
        names.append(submission.name)
        return {"1.1": RIGHT, "1.2": WRONG}

    monkeypatch.setattr(grading, "run_tests", run_tests)
    monkeypatch.setattr(grading, "find_conditions", lambda lesson, limits, seed: grading.Conditions(limits, {}, seed))
    return names


def grade(tmp_path, *submissions, limits=ASSIGNMENT.limits):
    return grading.grade(1, submissions, limits, tmp_path, 1, QUIET)


def test_grading_continues_where_it_was_stopped(graded, tmp_path):
    ann, stop, bob = (Submission(name, {"a.py": name}) for name in ("ann", "stop", "bob"))
    with pytest.raises(KeyboardInterrupt):
        grade(tmp_path, ann, stop, bob)
    assert graded == ["ann"]
    assert list(grade(tmp_path, ann, bob)) == ["ann", "bob"] and graded == ["ann", "bob"]
    assert grade(tmp_path, ann, bob)["bob"] == {"1.1": RIGHT, "1.2": WRONG} and graded == ["ann", "bob"]


def test_changed_submission_is_graded_again(graded, tmp_path):
    grade(tmp_path, Submission("ann", {"a.py": "1"}))
    grade(tmp_path, Submission("ann", {"a.py": "2"}))
    grade(tmp_path, Submission("ann", {"a.py": "2"}), limits=Limits(seconds=1))
    grade(tmp_path, Submission("ann", {}, {"a.py": "was not handed in"}))
    assert graded == ["ann"] * 4
    (tmp_path / "results" / "ann.json").write_text('{"fingerprint": ')
    grade(tmp_path, Submission("ann", {}, {"a.py": "was not handed in"}))
    assert graded == ["ann"] * 5, "an incomplete record is not used"


def test_table_csv_json_and_feedback_agree(tmp_path):
    results = {
        "ann": {"1.1": RIGHT, "1.2": RIGHT},
        "bob": {"1.1": RIGHT, "1.2": WRONG},
        "cid": {"1.1": WRONG, "1.2": MISSING},
    }
    table = exercise_table(exercise_folder(1))
    gradebook.write(tmp_path, "lesson_01_vit", results, ASSIGNMENT, table, {"network": True}, {"cid": 0})
    rows = list(csv.DictReader((tmp_path / "grades.csv").open()))
    assert [(row["submission"], row["points"], row["of"], row["1.2"]) for row in rows] == [
        ("ann", "4.5", "4.5", "2.5"),
        ("bob", "2", "4.5", "0"),
        ("cid", "0", "4.5", "0"),
    ]
    record = json.loads((tmp_path / "grades.json").read_text())
    assert [each["points"] for each in record["submissions"].values()] == [4.5, 2, 0] and record["enforced"] == {
        "network": True
    }
    QUIET.file.truncate(0)
    QUIET.print(gradebook.grade_table(results, ASSIGNMENT, {}))
    printed = QUIET.file.getvalue()
    counts = [printed.count(mark) for mark in "✓✗·–?!"]
    assert counts == [3 + 1, 2 + 1, 0 + 1, 1 + 1, 1, 1], "the title explains each mark once"
    page = (tmp_path / "feedback" / "bob.md").read_text()
    assert "**2 of 4.5 points**" in page and "`test_it[1]`" in page and "\n    AssertionError: # not **this**\n" in page
    assert table["1.2"].hint in page and table["1.1"].hint not in page
    assert "mae.py was not handed in." in (tmp_path / "feedback" / "cid.md").read_text()


def test_exercise_without_passed_tests_gets_no_points():
    assert gradebook.points({"1.1": replace(RIGHT, passed=0, tests=0)}, ASSIGNMENT) == {"1.1": 0}
    assert gradebook.points({"1.1": replace(RIGHT, passed=3, tests=4)}, ASSIGNMENT) == {"1.1": 0}
