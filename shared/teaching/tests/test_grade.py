"""Grading a class goes on where it was stopped, grades again what has changed, and writes what it says on the screen."""

import csv
import io
import json
from datetime import date

import pytest
from rich.console import Console

from shared.teaching import grade as grading
from shared.teaching import gradebook
from shared.teaching.course_settings import Assignment
from shared.teaching.isolation.sandbox import Limits
from shared.teaching.markers import exercise_folder, listed
from shared.teaching.submission import Submission

QUIET = Console(file=io.StringIO(), width=200)
GIVEN = Assignment("A class", {"1.1": 2, "1.2": 2.5}, None, date(2027, 3, 15), Limits())
RIGHT = {"passed": 3, "tests": 3, "test": "", "said": "", "seconds": 0.1, "memory_mb": 100}
WRONG = RIGHT | {"passed": 2, "test": "test_it[1]", "said": "AssertionError: # not **this**"}
MISSING = RIGHT | {"passed": 0, "said": "mae.py was not handed in"}


@pytest.fixture
def examined(monkeypatch):
    """Who has been examined, without examining anybody."""
    names = []

    def examine(number, submission, limits, needed):
        if submission.name == "stop":
            raise KeyboardInterrupt
        names.append(submission.name)
        return {"1.1": RIGHT, "1.2": WRONG}

    monkeypatch.setattr(grading, "examine", examine)
    monkeypatch.setattr(grading, "calibrate", lambda number, limits: {})
    return names


def grade(tmp_path, *submissions, limits=GIVEN.limits):
    return grading.grade(1, submissions, limits, tmp_path, 1, QUIET)


def test_it_goes_on_where_it_was_stopped(examined, tmp_path):
    ann, stop, bob = (Submission(name, {"a.py": name}) for name in ("ann", "stop", "bob"))
    with pytest.raises(KeyboardInterrupt):
        grade(tmp_path, ann, stop, bob)
    assert examined == ["ann"]
    assert list(grade(tmp_path, ann, bob)) == ["ann", "bob"] and examined == ["ann", "bob"]
    assert grade(tmp_path, ann, bob)["bob"] == {"1.1": RIGHT, "1.2": WRONG} and examined == ["ann", "bob"]


def test_what_has_changed_is_graded_again(examined, tmp_path):
    grade(tmp_path, Submission("ann", {"a.py": "1"}))
    grade(tmp_path, Submission("ann", {"a.py": "2"}))
    grade(tmp_path, Submission("ann", {"a.py": "2"}), limits=Limits(seconds=1))
    grade(tmp_path, Submission("ann", {}, {"a.py": "was not handed in"}))
    assert examined == ["ann"] * 4
    (tmp_path / "results" / "ann.json").write_text('{"fingerprint": ')
    grade(tmp_path, Submission("ann", {}, {"a.py": "was not handed in"}))
    assert examined == ["ann"] * 5, "half a record is none"


def test_table_csv_json_and_feedback_say_the_same(tmp_path):
    results = {
        "ann": {"1.1": RIGHT, "1.2": RIGHT},
        "bob": {"1.1": RIGHT, "1.2": WRONG},
        "cid": {"1.1": WRONG, "1.2": MISSING},
    }
    pages = listed(exercise_folder(1))
    gradebook.write(tmp_path, "lesson_01_vit", results, GIVEN, pages, {"network": True})
    rows = list(csv.DictReader((tmp_path / "grades.csv").open()))
    assert [(row["submission"], row["points"], row["of"], row["1.2"]) for row in rows] == [
        ("ann", "4.5", "4.5", "2.5"), ("bob", "2", "4.5", "0"), ("cid", "0", "4.5", "0"),
    ]  # fmt: skip
    kept = json.loads((tmp_path / "grades.json").read_text())
    assert [each["points"] for each in kept["submissions"].values()] == [4.5, 2, 0] and kept["enforced"] == {
        "network": True
    }
    QUIET.file.truncate(0)
    QUIET.print(gradebook.table(results, GIVEN))
    shown = QUIET.file.getvalue()
    assert [shown.count(mark) for mark in "✓✗·"] == [3 + 1, 2 + 1, 1 + 1], "the title explains each mark once"
    page = (tmp_path / "feedback" / "bob.md").read_text()
    assert "**2 of 4.5 points**" in page and "`test_it[1]`" in page and "\n    AssertionError: # not **this**\n" in page
    assert pages["1.2"]["hint"] in page and pages["1.1"]["hint"] not in page
    assert "mae.py was not handed in." in (tmp_path / "feedback" / "cid.md").read_text()


def test_no_test_is_no_pass():
    assert gradebook.points({"1.1": RIGHT | {"passed": 0, "tests": 0}}, GIVEN) == {"1.1": 0}
    assert gradebook.points({"1.1": RIGHT | {"passed": 3, "tests": 4}}, GIVEN) == {"1.1": 0}
