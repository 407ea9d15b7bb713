"""Test the files for learning platforms and the feedback pages: every student once, every text escaped."""

import csv
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from shared.teaching import gradebook
from shared.teaching.exports import Column, write_exports
from shared.teaching.feedback import markdown_page, web_page
from shared.teaching.markers import exercise_folder, exercise_table
from shared.teaching.roster import read_roster
from shared.teaching.tests.test_grade import ASSIGNMENT, MISSING, RIGHT, WRONG

COLUMN = Column("lesson_01_vit", 4.5)
TOTALS = {"ann": 4.5, "Bob Lee": 0.0, "guest": 2.0}


@pytest.fixture
def exported(tmp_path):
    def export(roster):
        (tmp_path / "roster.csv").write_text(roster, encoding="utf-8")
        names = write_exports(tmp_path, COLUMN, TOTALS, read_roster(tmp_path))
        return {name: list(csv.reader((tmp_path / name).open(encoding="utf-8"))) for name in names}

    return export


def test_canvas_gets_its_columns_and_the_row_of_possible_points(exported):
    files = exported("student,ID,SIS User ID,Section\nAnn,17,a-17,A\nBob Lee,18,,B\nabsent,19,,B\n")
    assert list(files) == ["canvas.csv"]
    assert files["canvas.csv"] == [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "lesson_01_vit"],
        ["    Points Possible", "", "", "", "", "4.5"],
        ["Ann", "17", "a-17", "", "A", "4.5"],
        ["Bob Lee", "18", "", "", "B", "0"],
    ]


def test_moodle_and_blackboard_find_students_by_their_identifiers(exported):
    files = exported('student,Username,Email address\nann,al,"ann@school.org"\nBob Lee,bl,\n')
    assert files["moodle.csv"] == [["Email address", "lesson_01_vit"], ["ann@school.org", "4.5"]]
    assert files["blackboard.csv"] == [["Username", "lesson_01_vit [Total Pts: 4.5 Score]"], ["al", "4.5"], ["bl", "0"]]
    assert exported("student,ID number\nann,5\n")["moodle.csv"][1] == ["5", "4.5"]


@pytest.mark.parametrize("roster", ["student,ID\nstranger,4\n", "student,name\nann,Ann Lee\n"])
def test_without_students_or_identifiers_nothing_is_written(exported, tmp_path, roster):
    assert exported(roster) == {}
    assert not list(tmp_path.glob("[cmb]*.csv"))


class Page(HTMLParser):
    """Collect the tags and the text of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = set(), ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


def test_both_feedback_pages_agree_and_escape_what_students_wrote():
    hostile = replace(WRONG, message="ValueError: <script>alert(1)</script> & more")
    results = {"1.1": hostile, "1.2": MISSING}
    table = exercise_table(exercise_folder(1))
    feedback = gradebook.feedback("lesson_01_vit", "<b>ann</b>", results, ASSIGNMENT, table, days_late=2)
    page = Page()
    page.feed(web_page(feedback))
    assert {"script", "b"}.isdisjoint(page.tags)
    text = markdown_page(feedback)
    for phrase in ("<b>ann</b>", "0 of 4.5 points", "2 days late", hostile.message, "test_it[1]", MISSING.message):
        assert phrase in page.text and phrase in text
    assert table["1.1"].hint in page.text and table["1.1"].hint in text


def test_a_solved_exercise_needs_no_section():
    table = exercise_table(exercise_folder(1))
    page = Page()
    page.feed(web_page(gradebook.feedback("lesson_01_vit", "ann", {"1.1": RIGHT}, ASSIGNMENT, table)))
    assert "h2" not in page.tags and "3 of 3" in page.text and "2 of 2" in page.text
