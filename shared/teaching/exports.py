"""Write grades as the CSV files that Canvas, Moodle and Blackboard import.

A platform finds a student by an identifier of its own, which the roster supplies: columns of `roster.csv` that have the
platform's names, as in the list of the class that it exports. A platform whose identifiers the roster lacks gets no
file.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.atomic import write_atomically
from shared.teaching.roster import STUDENT, Roster

CANVAS = ("ID", "SIS User ID", "SIS Login ID", "Section")
"""Columns by which Canvas finds a student; the first three identify one."""


@dataclass(frozen=True)
class Column:
    """Describe the column of grades: its title and the greatest number of points."""

    title: str
    possible: float


def write_exports(folder: Path, column: Column, totals: Mapping[str, float], roster: Roster) -> list[str]:
    """Write the file of each platform whose identifiers the roster has, and return the files' names.

    totals  submission → points

    Students who are not in the roster are left out: no platform could find them.
    """
    by_name = {name.casefold(): total for name, total in totals.items()}
    points = {name: by_name[name.casefold()] for name in roster if name.casefold() in by_name}
    written = []
    for file, table in (
        ("canvas.csv", canvas_table(column, points, roster)),
        ("moodle.csv", moodle_table(column, points, roster)),
        ("blackboard.csv", blackboard_table(column, points, roster)),
    ):
        if table:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(table)
            write_atomically(folder / file, text.getvalue().encode())
            written.append(file)
    return written


def canvas_table(column: Column, points: Mapping[str, float], roster: Roster) -> list[list[str]]:
    """Return the rows for Canvas: a header, the possible points, and one row per student; none without identifiers."""
    rows = [
        [roster[name][STUDENT], *(roster[name].get(each, "") for each in CANVAS), f"{value:g}"]
        for name, value in points.items()
        if any(roster[name].get(each) for each in CANVAS[:3])
    ]
    head = ["Student", *CANVAS, column.title]
    return [head, ["    Points Possible", *[""] * len(CANVAS), f"{column.possible:g}"], *rows] if rows else []


def moodle_table(column: Column, points: Mapping[str, float], roster: Roster) -> list[list[str]]:
    """Return a header and one row per student for Moodle, by the first identifier that the roster has."""
    for identifier in ("Email address", "ID number", "Username"):
        if rows := _rows_by(identifier, points, roster):
            return [[identifier, column.title], *rows]
    return []


def blackboard_table(column: Column, points: Mapping[str, float], roster: Roster) -> list[list[str]]:
    """Return a header and one row per student for Blackboard, which finds students by their user names."""
    rows = _rows_by("Username", points, roster)
    return [["Username", f"{column.title} [Total Pts: {column.possible:g} Score]"], *rows] if rows else []


def _rows_by(identifier: str, points: Mapping[str, float], roster: Roster) -> Sequence[list[str]]:
    return [[roster[name][identifier], f"{value:g}"] for name, value in points.items() if roster[name].get(identifier)]
