"""`make progress`: show which lessons are complete, which command is next, and how many hours are left.

A lesson is complete when a run on this machine found its claims as expected, and its exercises, once opened with
`make start-N`, are solved. The hours left are those of lessons that are not complete and of exercises that are not
solved; the exercises of planned lessons are not known yet.
"""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shared.cli import command_line
from shared.course.claims import MEASURED
from shared.course.lesson import ROOT, LessonEntry, lesson_entries
from shared.course.records import DamagedRecord, read_json
from shared.teaching.check import RECORD, read_hashes
from shared.teaching.markers import exercise_code, exercise_table, exercise_tests, exercises_of
from shared.teaching.self_study import saved_solutions


@dataclass(frozen=True)
class LessonProgress:
    """The progress in one lesson: claims that came out as expected, and exercises solved."""

    entry: LessonEntry
    built: bool
    claims: int
    judged_claims: int
    solved_exercises: int
    exercises: int
    opened: bool
    """True when `make start-N` has opened the exercises."""
    exercise_minutes: int = 0
    """The minutes of the exercises that are not solved, as the lesson's pages state them."""

    @property
    def complete(self) -> bool:
        return self.built and 0 < self.judged_claims == self.claims and self.solved_exercises == self.exercises

    @property
    def minutes_left(self) -> int:
        """The minutes of the lesson and of its unsolved exercises; 0 when it is complete."""
        return 0 if self.complete else self.entry.minutes + self.exercise_minutes

    @property
    def next_command(self) -> str:
        """The command that continues this lesson."""
        number = self.entry.number
        if not self.judged_claims or self.claims < self.judged_claims:
            return f"make lesson-{number}"
        return f"make check-{number}" if self.opened else f"make start-{number}"


def lesson_progress(entry: LessonEntry, root: Path = ROOT) -> LessonProgress:
    """Return the progress in one lesson from the records of runs and checks; nothing is run."""
    path = next(iter(sorted((root / "lessons").glob(f"lesson_{entry.number:02d}_*/experiment/lesson.py"))), None)
    if path is None:
        return LessonProgress(entry, False, 0, 0, 0, 0, False)
    folder = path.parent.parent
    runs = root / "runs" / folder.name
    claims, judged = max((_count_claims(file) for file in runs.glob("*/claims.json")), default=(0, 0))
    if not exercise_tests(folder):
        return LessonProgress(entry, True, claims, judged, 0, 0, False)
    saved = saved_solutions(entry.number, root / ".solutions")
    hashes, solved, minutes = read_hashes(runs / RECORD), 0, 0
    exercises, table = exercises_of(entry.number), exercise_table(folder)
    for exercise in exercises:
        code = exercise_code(exercise.path.read_text(encoding="utf-8"), exercise.number)
        code_hash = hashlib.sha256(code.encode()).hexdigest()
        if exercise.number in saved and hashes.get(exercise.number) == code_hash:
            solved += 1
        elif exercise.number in table:
            minutes += table[exercise.number].minutes
    return LessonProgress(entry, True, claims, judged, solved, len(exercises), bool(saved), minutes)


def _count_claims(path: Path) -> tuple[int, int]:
    """Return how many claims of a run came out as expected, and how many were judged; none for a damaged record."""
    try:
        claims = read_json(path)
        judged = [claim["as_expected"] for claim in claims if claim["verdict"] != MEASURED]
    except (DamagedRecord, TypeError, KeyError):
        return 0, 0
    # A run of the smoke preset judges the exact claims alone, and does not count as a run of the lesson.
    if len(judged) < len(claims) / 2:
        return 0, 0
    return sum(judged), len(judged)


def summary(lessons: list[LessonProgress]) -> str:
    """Return the last line: lessons complete, hours left, next command. Lesson 0, the on-ramp, counts in hours only."""
    numbered = [each for each in lessons if each.entry.number]
    hours = round(sum(each.minutes_left for each in lessons) / 60)
    line = f"{sum(each.complete for each in numbered)} / {len(numbered)} complete, about {hours} hours left"
    following = next((each for each in lessons if each.built and not each.complete), None)
    return f"{line}; next: {following.next_command}" if following else line


@command_line()
def main() -> int:
    lessons = [lesson_progress(entry) for entry in lesson_entries()]
    table = Table(box=None)
    for column in ("", "lesson", "claims", "exercises", "minutes left"):
        table.add_column(column)
    for each in lessons:
        if each.built:
            mark = "[green]✓[/]" if each.complete else "·"
            claims = f"{each.claims} / {each.judged_claims}" if each.judged_claims else "not run"
            exercises = f"{each.solved_exercises if each.opened else 0} / {each.exercises}"
            title = f"{each.entry.number}  {each.entry.title}"
            table.add_row(mark, title, claims, exercises, str(each.minutes_left or ""))
    console = Console()
    console.print(table)
    console.print(summary(lessons), highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
