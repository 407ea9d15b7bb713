"""What grading leaves: a table in the terminal, JSON and CSV of a class, and a page of feedback for each student."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from shared.atomic import write_atomically
from shared.teaching.course_settings import Assignment
from shared.teaching.run_tests import NOT_STARTED, right


def points(found: Mapping[str, Mapping], assignment: Assignment) -> dict[str, int | float]:
    """Exercise → points: all of them where every test passed, none otherwise."""
    return {name: assignment.points[name] if right(each) else 0 for name, each in found.items()}


def table(results: Mapping[str, Mapping], assignment: Assignment) -> Table:
    """A line for each student, a column for each exercise."""
    exercises = list(next(iter(results.values())))
    shown = Table(title="✓ passed   ✗ failed   · not started or not handed in", title_justify="left")
    shown.add_column("submission", overflow="fold")
    for name in exercises:
        shown.add_column(name, justify="center")
    shown.add_column(f"points of {sum(assignment.points[name] for name in exercises):g}", justify="right")
    for student, found in results.items():
        marks = ["[green]✓[/]" if right(each) else "·" if not each["test"] else "[red]✗[/]" for each in found.values()]
        shown.add_row(escape(student), *marks, f"{sum(points(found, assignment).values()):g}")
    return shown


def write(
    folder: Path, lesson: str, results: Mapping[str, Mapping], assignment: Assignment, pages: Mapping, held: Mapping
) -> None:
    """Write grades.csv, grades.json and feedback/NAME.md."""
    exercises = list(next(iter(results.values())))
    possible = sum(assignment.points[name] for name in exercises)
    rows = io.StringIO()
    sheet = csv.writer(rows, lineterminator="\n")
    sheet.writerow(["submission", "points", "of", *exercises])
    for student, found in results.items():
        earned = points(found, assignment)
        sheet.writerow(
            [student, f"{sum(earned.values()):g}", f"{possible:g}", *(f"{value:g}" for value in earned.values())]
        )
        page = feedback(lesson, student, found, assignment, pages)
        write_atomically(folder / "feedback" / f"{student}.md", page.encode())
    write_atomically(folder / "grades.csv", rows.getvalue().encode())
    everything = {
        "lesson": lesson,
        "graded": datetime.now(UTC).isoformat(timespec="seconds"),
        "enforced": dict(held),
        "points": {name: assignment.points[name] for name in exercises},
        "submissions": {
            student: {"points": sum(points(found, assignment).values()), "of": possible, "exercises": found}
            for student, found in results.items()
        },
    }
    write_atomically(folder / "grades.json", json.dumps(everything, indent=1, ensure_ascii=False).encode() + b"\n")


def feedback(lesson: str, student: str, found: Mapping[str, Mapping], assignment: Assignment, pages: Mapping) -> str:
    """The page that goes back to one student."""
    earned = points(found, assignment)
    possible = sum(assignment.points[name] for name in found)
    lines = [f"# {lesson}: {student}", "", f"**{sum(earned.values()):g} of {possible:g} points**", ""]
    lines += ["| exercise | | tests passed | points |", "|---|---|---|---|"]
    for name, each in found.items():
        shown = f"{each['passed']} of {each['tests']}"
        lines.append(f"| {name} | {pages[name]['title']} | {shown} | {earned[name]:g} of {assignment.points[name]:g} |")
    for name, each in found.items():
        if right(each):
            continue
        lines += ["", f"## {name}: {pages[name]['title']}", ""]
        if each["test"]:
            lines += [f"The first test that failed is `{each['test']}`. It said:", "", *_quoted(each["said"])]
        else:
            lines += [f"{each['said']}."]
        if pages[name]["hint"] and each["said"] != NOT_STARTED:
            lines += ["", f"A hint: {pages[name]['hint']}"]
    return "\n".join(lines) + "\n"


def _quoted(said: str) -> Sequence[str]:
    # Indented by four, it stays text whatever it is; what a student's code says is no Markdown of ours.
    return [f"    {said}"]
