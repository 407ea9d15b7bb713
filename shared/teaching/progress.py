"""`make progress`: which lessons are done, what comes next, and how many hours are left.

A lesson is done when a run on this machine has found its claims as expected and its exercises, once opened with
`make start-N`, are solved.
"""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shared.course.lesson import ROOT, LessonEntry, lesson_entries
from shared.teaching.check import RECORD
from shared.teaching.markers import exercise_tests, exercises_of, part
from shared.teaching.self_study import kept


@dataclass(frozen=True)
class Standing:
    """How far one lesson has come: claims as expected of those judged, exercises solved of those there are."""

    entry: LessonEntry
    built: bool
    claims: int
    of_claims: int
    exercises: int
    of_exercises: int
    opened: bool

    @property
    def done(self) -> bool:
        return self.built and 0 < self.of_claims == self.claims and self.exercises == self.of_exercises

    @property
    def next_step(self) -> str:
        """The command that brings this lesson on."""
        number = self.entry.number
        if not self.of_claims or self.claims < self.of_claims:
            return f"make lesson-{number}"
        return f"make check-{number}" if self.opened else f"make start-{number}"


def standing(entry: LessonEntry, root: Path = ROOT) -> Standing:
    """Read from what runs and checks have left how far a lesson has come; nothing is run."""
    folder = next(iter(sorted((root / "lessons").glob(f"lesson_{entry.number:02d}_*/experiment/lesson.py"))), None)
    if folder is None:
        return Standing(entry, False, 0, 0, 0, 0, False)
    lesson = folder.parent.parent.name
    claims, judged = max((_claims(path) for path in (root / "runs" / lesson).glob("*/claims.json")), default=(0, 0))
    if not exercise_tests(folder.parent.parent):
        return Standing(entry, True, claims, judged, 0, 0, False)
    opened, record, solved = kept(entry.number, root / ".solutions"), root / "runs" / lesson / RECORD, 0
    passed = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    exercises = exercises_of(entry.number)
    for exercise in exercises:
        here = part(exercise.path.read_text(encoding="utf-8"), exercise.number)
        solved += exercise.number in opened and passed.get(exercise.number) == hashlib.sha256(here.encode()).hexdigest()
    return Standing(entry, True, claims, judged, solved, len(exercises), bool(opened))


def _claims(path: Path) -> tuple[int, int]:
    """As expected, and judged at all: a claim that was only measured says nothing."""
    verdicts = [claim["verdict"] for claim in json.loads(path.read_text(encoding="utf-8"))]
    judged = [verdict for verdict in verdicts if verdict != "measured"]
    # A run of the quick preset judges the exact claims alone, and is no run of the lesson.
    if len(judged) < len(verdicts) / 2:
        return 0, 0
    return sum(verdict in ("reproduced", "not at this scale") for verdict in judged), len(judged)


def summary(found: list[Standing]) -> str:
    """The last line: how much is done, what comes next, how long it takes. The on-ramp, lesson 0, counts for the hours only."""
    lessons = [each for each in found if each.entry.number]
    minutes = sum(each.entry.minutes for each in found if not each.done)
    line = f"{sum(each.done for each in lessons)} / {len(lessons)} complete, about {round(minutes / 60)} hours left"
    following = next((each for each in found if each.built and not each.done), None)
    return f"{line}; next: {following.next_step}" if following else line


def main() -> int:
    found = [standing(entry) for entry in lesson_entries()]
    table = Table(box=None)
    for column in ("", "lesson", "claims", "exercises", "minutes"):
        table.add_column(column)
    for each in found:
        if each.built:
            mark = "[green]✓[/]" if each.done else "·"
            claims = f"{each.claims} / {each.of_claims}" if each.of_claims else "not run"
            exercises = f"{each.exercises} / {each.of_exercises}" if each.opened else f"0 / {each.of_exercises}"
            title = f"{each.entry.number}  {each.entry.title}"
            table.add_row(mark, title, claims, exercises, "" if each.done else str(each.entry.minutes))
    console = Console()
    console.print(table)
    console.print(summary(found), highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
