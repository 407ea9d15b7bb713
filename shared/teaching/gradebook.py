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
from shared.teaching.markers import ExerciseInfo
from shared.teaching.run_tests import NOT_STARTED

Results = Mapping[str, ExerciseResult]
"""Exercise → result, of one submission."""


def points(results: Results, assignment: Assignment) -> dict[str, int | float]:
    """Return exercise → points: all of them if every test passed, else none."""
    return {number: assignment.points[number] if result.solved else 0 for number, result in results.items()}


def grade_table(results: Mapping[str, Results], assignment: Assignment) -> Table:
    """Return a table with a row per student and a column per exercise."""
    exercises = list(next(iter(results.values())))
    table = Table(title="✓ passed   ✗ failed   · not started or not handed in", title_justify="left")
    table.add_column("submission", overflow="fold")
    for number in exercises:
        table.add_column(number, justify="center")
    table.add_column(f"points of {sum(assignment.points[number] for number in exercises):g}", justify="right")
    for student, of_student in results.items():
        marks = [_mark(result) for result in of_student.values()]
        table.add_row(escape(student), *marks, f"{sum(points(of_student, assignment).values()):g}")
    return table


def _mark(result: ExerciseResult) -> str:
    if result.solved:
        return "[green]✓[/]"
    return "[red]✗[/]" if result.failed_test else "·"


def write(
    folder: Path,
    lesson: str,
    results: Mapping[str, Results],
    assignment: Assignment,
    table: Mapping[str, ExerciseInfo],
    enforced: Mapping[str, bool],
) -> None:
    """Write grades.csv, grades.json and feedback/NAME.md into `folder`.

    table     what the lesson's pages say of each exercise
    enforced  which protections against students' code held
    """
    exercises = list(next(iter(results.values())))
    possible = sum(assignment.points[number] for number in exercises)
    rows = io.StringIO()
    sheet = csv.writer(rows, lineterminator="\n")
    sheet.writerow(["submission", "points", "of", *exercises])
    submissions = {}
    for student, of_student in results.items():
        earned = points(of_student, assignment)
        total = sum(earned.values())
        sheet.writerow([student, f"{total:g}", f"{possible:g}", *(f"{value:g}" for value in earned.values())])
        page = feedback(lesson, student, of_student, assignment, table)
        write_atomically(folder / "feedback" / f"{student}.md", page.encode())
        details = {number: asdict(result) for number, result in of_student.items()}
        submissions[student] = {"points": total, "of": possible, "exercises": details}
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
    lesson: str, student: str, results: Results, assignment: Assignment, table: Mapping[str, ExerciseInfo]
) -> str:
    """Return the feedback page for one student."""
    earned = points(results, assignment)
    possible = sum(assignment.points[number] for number in results)
    lines = [f"# {lesson}: {student}", "", f"**{sum(earned.values()):g} of {possible:g} points**", ""]
    lines += ["| exercise | | tests passed | points |", "|---|---|---|---|"]
    for number, result in results.items():
        tests = f"{result.passed} of {result.tests}"
        worth = f"{earned[number]:g} of {assignment.points[number]:g}"
        lines.append(f"| {number} | {table[number].title} | {tests} | {worth} |")
    for number, result in results.items():
        if result.solved:
            continue
        lines += ["", f"## {number}: {table[number].title}", ""]
        if result.failed_test:
            # Indented by four, the message of a student's code cannot be Markdown of this page.
            lines += [f"The first test that failed is `{result.failed_test}`:", "", f"    {result.message}"]
        else:
            lines += [f"{result.message}."]
        if table[number].hint and result.message != NOT_STARTED:
            lines += ["", f"A hint: {table[number].hint}"]
    return "\n".join(lines) + "\n"
