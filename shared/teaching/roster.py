"""Read `roster.csv`, in which an instructor lists the students of a class."""

import csv
import io
from collections.abc import Collection, Mapping
from pathlib import Path

from shared.errors import CourseError
from shared.teaching.submission import submission_names
from shared.text_files import read_text

ROSTER = "roster.csv"
STUDENT = "student"
"""Column with the names of the submissions."""

Roster = Mapping[str, Mapping[str, str]]
"""Name of the submission → column → text, of every student."""


def read_roster(place: Path) -> Roster:
    """Return the students of roster.csv in the folder of submissions; none when there is no such file.

    Raises CourseError for a file without the column `student`.
    """
    path = place / ROSTER
    if not path.is_file():
        return {}
    rows = csv.DictReader(io.StringIO(read_text(path)))
    if STUDENT not in (rows.fieldnames or ()):
        raise CourseError(f"{path}: expected a column {STUDENT}, with the names of the submissions")
    students = [
        {column: (text or "").strip() for column, text in row.items() if isinstance(column, str)} for row in rows
    ]
    students = [each for each in students if each[STUDENT]]
    return dict(zip(submission_names([each[STUDENT] for each in students]), students, strict=True))


def missing_students(roster: Roster, graded: Collection[str]) -> list[str]:
    """Return the students of the roster of whom nothing was handed in."""
    handed_in = {name.casefold() for name in graded}
    return [name for name in roster if name.casefold() not in handed_in]
