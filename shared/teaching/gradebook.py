"""Write the results of grading: a table for the terminal, CSV and JSON for the class, a feedback page per student."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from shared.atomic import write_atomically
from shared.teaching.course_settings import Assignment
from shared.teaching.exercise_result import ExerciseResult
from shared.teaching.feedback import Feedback, feedback_of, markdown_page, web_page
from shared.teaching.markers import ExerciseInfo
from shared.teaching.submission import NOT_HANDED_IN, TOO_LARGE, UNREADABLE

MARKS = {NOT_HANDED_IN.removeprefix("was "): "–", UNREADABLE: "?", TOO_LARGE: "!"}
"""Why an exercise was not tested → its mark in the table."""

Results = Mapping[str, ExerciseResult]
"""Exercise → result, of one submission."""


def points(results: Results, assignment: Assignment, days_late: int = 0) -> dict[str, int | float]:
    """Return exercise → points: all of them if every test passed, else none; fewer for a late submission."""
    fraction = assignment.late.fraction(days_late) if days_late else 1
    return {number: assignment.points[number] * fraction if result.solved else 0 for number, result in results.items()}


def totals(results: Mapping[str, Results], assignment: Assignment, late: Mapping[str, int]) -> dict[str, float]:
    """Return submission → points over all exercises."""
    return {name: sum(points(each, assignment, late.get(name, 0)).values()) for name, each in results.items()}


def grade_table(results: Mapping[str, Results], assignment: Assignment, late: Mapping[str, int]) -> Table:
    """Return a table with a row per student and a column per exercise."""
    exercises = list(next(iter(results.values())))
    marks = {mark: name for name, mark in MARKS.items()}
    title = "   ".join(f"{mark} {name}" for mark, name in marks.items())
    table = Table(title=f"✓ passed   ✗ failed   · not started   {title}", title_justify="left")
    table.add_column("submission", overflow="fold")
    for number in exercises:
        table.add_column(number, justify="center")
    table.add_column(f"points of {sum(assignment.points[number] for number in exercises):g}", justify="right")
    if any(late.values()):
        table.add_column("days late", justify="right")
    for student, of_student in results.items():
        days = late.get(student, 0)
        row = [*map(_mark, of_student.values()), f"{sum(points(of_student, assignment, days).values()):g}"]
        table.add_row(escape(student), *row, *([str(days or "")] if any(late.values()) else []))
    return table


def _mark(result: ExerciseResult) -> str:
    if result.solved:
        return "[green]✓[/]"
    if result.failed_test:
        return "[red]✗[/]"
    return next((mark for problem, mark in MARKS.items() if problem in result.message), "·")


def write(
    folder: Path,
    lesson: str,
    results: Mapping[str, Results],
    assignment: Assignment,
    table: Mapping[str, ExerciseInfo],
    enforced: Mapping[str, bool],
    late: Mapping[str, int],
) -> None:
    """Write grades.csv, grades.json, and feedback/NAME.md and .html into `folder`.

    table     what the lesson's pages say of each exercise
    enforced  which protections against students' code held
    late      student → days late
    """
    exercises = list(next(iter(results.values())))
    possible = sum(assignment.points[number] for number in exercises)
    rows = io.StringIO()
    sheet = csv.writer(rows, lineterminator="\n")
    sheet.writerow(["submission", "points", "of", "days late", *exercises])
    submissions = {}
    for student, of_student in results.items():
        days = late.get(student, 0)
        earned = points(of_student, assignment, days)
        total = sum(earned.values())
        sheet.writerow([student, f"{total:g}", f"{possible:g}", days, *(f"{value:g}" for value in earned.values())])
        page = feedback(lesson, student, of_student, assignment, table, days)
        write_atomically(folder / "feedback" / f"{student}.md", markdown_page(page).encode())
        write_atomically(folder / "feedback" / f"{student}.html", web_page(page).encode())
        details = {number: asdict(result) for number, result in of_student.items()}
        submissions[student] = {"points": total, "of": possible, "days_late": days, "exercises": details}
    write_atomically(folder / "grades.csv", rows.getvalue().encode())
    content = {
        "lesson": lesson,
        "graded": datetime.now(UTC).isoformat(timespec="seconds"),
        "enforced": dict(enforced),
        "points": {number: assignment.points[number] for number in exercises},
        "submissions": submissions,
    }
    write_atomically(folder / "grades.json", json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")


def feedback(
    lesson: str,
    student: str,
    results: Results,
    assignment: Assignment,
    table: Mapping[str, ExerciseInfo],
    days_late: int = 0,
) -> Feedback:
    """Return the feedback for one student."""
    earned = points(results, assignment, days_late)
    total = f"{sum(earned.values()):g} of {sum(assignment.points[number] for number in results):g}"
    late = ""
    if days_late:
        counted = assignment.late.fraction(days_late)
        days = f"{days_late} day{'s' if days_late > 1 else ''} late"
        late = f"Handed in {days}: each exercise counts {counted:.0%} of its points."
    worth = {number: f"{earned[number]:g} of {assignment.points[number]:g}" for number in results}
    return feedback_of(f"{lesson}: {student}", total, late, results, table, worth)
