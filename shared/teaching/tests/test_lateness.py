"""Test due dates, the policy for late submissions, and the roster."""

import csv
from dataclasses import replace
from datetime import date, datetime

import pytest

from shared.errors import CourseError
from shared.teaching import grade as grading
from shared.teaching import gradebook
from shared.teaching.class_folder import HandIn
from shared.teaching.course_settings import load_assignment
from shared.teaching.lateness import LatePolicy, days_late, handed_in_times, lateness
from shared.teaching.markers import exercise_folder, exercise_table
from shared.teaching.roster import missing_students, read_roster
from shared.teaching.tests.test_grade import ASSIGNMENT, QUIET, RIGHT, WRONG

POLICY = LatePolicy(grace_minutes=30, percent_per_day=10, most_days=3)
DUE = date(2027, 3, 15)


@pytest.mark.parametrize(
    ("time", "days", "fraction"),
    [
        ("2027-03-15T23:59", 0, 1),
        ("2027-03-16T00:30", 0, 1),
        ("2027-03-16T00:31", 1, 0.9),
        ("2027-03-17T00:30", 1, 0.9),
        ("2027-03-18T12:00", 3, 0.7),
        ("2027-03-19T12:00", 4, 0),
    ],
)
def test_days_begun_are_counted_after_the_grace(time, days, fraction):
    assert days_late(datetime.fromisoformat(time), DUE, POLICY) == days
    assert POLICY.fraction(days) == pytest.approx(fraction)


def test_due_times_and_no_policy():
    due = datetime(2027, 3, 15, 12)
    assert days_late(datetime(2027, 3, 15, 12, 1), due, LatePolicy()) == 1
    assert days_late(datetime(2027, 3, 15, 12, 1), None, POLICY) == 0
    assert LatePolicy().fraction(100) == 1 and LatePolicy(percent_per_day=30).fraction(9) == 0


def test_time_is_what_is_stated(tmp_path):
    ann = HandIn(tmp_path, "ann", late=True)
    ivy = HandIn(tmp_path, "ivy", stated=datetime(2027, 3, 17, 12))
    assert lateness(ivy, {}, DUE, POLICY) == 2 and lateness(ivy, {"ivy": datetime(2027, 3, 15)}, DUE, POLICY) == 0
    assert lateness(ann, {}, DUE, POLICY) == 1, "marked by the platform"
    assert lateness(HandIn(tmp_path, "bob"), {}, DUE, POLICY) is None
    assert lateness(HandIn(tmp_path, "bob"), {}, None, POLICY) == 0


def test_listed_times_are_read_and_checked(tmp_path):
    assert handed_in_times(tmp_path) == {}
    (tmp_path / "handed_in.csv").write_text("student,time\nann,2027-03-15T23:50\n")
    assert handed_in_times(tmp_path) == {"ann": datetime(2027, 3, 15, 23, 50)}
    for text in ("student,time\nann,yesterday\n", "name,time\nann,2027-03-15\n"):
        (tmp_path / "handed_in.csv").write_text(text)
        with pytest.raises(CourseError, match=r"handed_in\.csv:2"):
            handed_in_times(tmp_path)


def test_late_points_agree_in_table_csv_and_feedback(tmp_path):
    assignment = replace(ASSIGNMENT, late=POLICY)
    results = {"ann": {"1.1": RIGHT, "1.2": RIGHT}, "bob": {"1.1": RIGHT, "1.2": WRONG}}
    late = {"ann": 2, "bob": 0}
    gradebook.write(tmp_path, "lesson_01_vit", results, assignment, exercise_table(exercise_folder(1)), {}, late)
    rows = {row["submission"]: row for row in csv.DictReader((tmp_path / "grades.csv").open())}
    assert [rows[name]["points"] for name in ("ann", "bob")] == ["3.6", "2"] and rows["ann"]["days late"] == "2"
    page = (tmp_path / "feedback" / "ann.md").read_text()
    assert "**3.6 of 4.5 points**" in page and "2 days late" in page and "80%" in page
    assert "late" not in (tmp_path / "feedback" / "bob.md").read_text()
    QUIET.file.truncate(0)
    QUIET.print(gradebook.grade_table(results, assignment, late))
    assert "3.6" in QUIET.file.getvalue() and "days late" in QUIET.file.getvalue()


def test_unstated_times_are_said(tmp_path):
    hand_ins = [HandIn(tmp_path, "ann"), HandIn(tmp_path, "bob", late=True)]
    late, notes = grading.days_late_of(tmp_path, hand_ins, ["ann", "bob"], replace(ASSIGNMENT, late=POLICY))
    assert late == {"ann": 0, "bob": 1} and len(notes) == 1 and "ann" in notes[0] and "bob" not in notes[0]


def test_students_of_the_roster_without_a_submission_get_a_row(tmp_path):
    assert missing_students(read_roster(tmp_path), ["ann"]) == []
    (tmp_path / "roster.csv").write_text("student,email\nAnn,a@b\nbob,\n\ncid,c@d\n")
    assert missing_students(read_roster(tmp_path), ["ann", "cid"]) == ["bob"]
    results = {"ann": {"1.1": RIGHT}, "bob": grading.nothing_handed_in(1)}
    assert {result.passed for result in results["bob"].values()} == {0}
    assert {gradebook._mark(result) for result in results["bob"].values()} == {"–"}
    (tmp_path / "roster.csv").write_text("name\nann\n")
    with pytest.raises(CourseError, match="column student"):
        read_roster(tmp_path)


@pytest.mark.parametrize("line", ["percent_per_day = -1", "grace_minutes = 'x'", "grace = 3"])
def test_policy_is_checked(tmp_path, line):
    path = tmp_path / "course.toml"
    path.write_text("[late]\npercent_per_day = 20\n")
    assert load_assignment(1, exercise_folder(1), path).late == LatePolicy(percent_per_day=20)
    path.write_text(f"[late]\n{line}\n")
    with pytest.raises(CourseError, match="late"):
        load_assignment(1, exercise_folder(1), path)
