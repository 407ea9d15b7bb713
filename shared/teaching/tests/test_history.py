"""Test that earlier grades stay when a later grading gives other points."""

import json

from shared.teaching.history import keep_earlier_grades


def write_grades(folder, points, graded="2027-03-15T12:00:00+00:00"):
    record = {"graded": graded, "submissions": {name: {"points": value} for name, value in points.items()}}
    (folder / "grades.json").write_text(json.dumps(record))
    return record


def history(folder):
    return {path.name: json.loads(path.read_text()) for path in (folder / "history").glob("*.json")}


def test_the_first_grading_and_an_equal_one_leave_no_history(tmp_path):
    assert keep_earlier_grades(tmp_path, {"ann": 2.5}) == []
    write_grades(tmp_path, {"ann": 2.5})
    assert keep_earlier_grades(tmp_path, {"ann": 2.5}) == [] and history(tmp_path) == {}


def test_changed_new_and_absent_submissions_are_listed_and_the_earlier_grades_stay(tmp_path):
    first = write_grades(tmp_path, {"ann": 2.5, "bob": 1, "cid": 3})
    changes = keep_earlier_grades(tmp_path, {"ann": 4.0, "cid": 3.0, "dan": 0.0})
    assert changes == ["ann: 2.5 points → 4 points", "bob: 1 points → no row", "dan: no row → 0 points"]
    assert history(tmp_path) == {"2027-03-15T12-00-00.json": first}
    second = write_grades(tmp_path, {"ann": 4.0})
    keep_earlier_grades(tmp_path, {"ann": 5.0})
    assert history(tmp_path) == {"2027-03-15T12-00-00.json": first, "2027-03-15T12-00-00 (2).json": second}


def test_an_unreadable_file_is_kept(tmp_path):
    (tmp_path / "grades.json").write_text('{"submissions": ')
    (line,) = keep_earlier_grades(tmp_path, {"ann": 1.0})
    assert "unreadable.json" in line
    assert (tmp_path / "history" / "unreadable.json").read_text() == '{"submissions": '
