"""Generate the tables of lessons: the front page's, with a result per lesson, and the syllabus for instructors."""

import re
from dataclasses import dataclass
from pathlib import Path

from shared.course.checkpoint import stale_version
from shared.course.claims import format_mean
from shared.course.exercises import find_exercises
from shared.course.lesson import ROOT, Lesson, LessonEntry, lesson_entries, lesson_folder, load_lesson
from shared.course.recorded_results import RecordKey, read_results, recorded_verdicts, seconds_per_seed
from shared.course.tables import rows_of
from shared.errors import CourseError
from shared.teaching.markers import exercise_table


@dataclass(frozen=True)
class ExerciseTotals:
    """The exercises of one lesson: their number, their minutes, and their points (an exercise's difficulty)."""

    count: int
    minutes: int
    points: int


def exercise_totals(folder: Path) -> ExerciseTotals:
    """Return the totals of a lesson's exercises. Raises CourseError when a page's table lacks an exercise."""
    table = exercise_table(folder)
    numbers = [exercise.number for exercise in find_exercises(folder)]
    if unlisted := sorted(set(numbers) - set(table)):
        raise CourseError(f"{folder.name}: no page lists exercise {', '.join(unlisted)} with difficulty and minutes")
    infos = [table[number] for number in numbers]
    return ExerciseTotals(len(infos), sum(info.minutes for info in infos), sum(info.difficulty for info in infos))


def headline(lesson: Lesson, folder: Path) -> tuple[str, str]:
    """Return a lesson's result for the front page: what its headline claim measures, and the value of its page."""
    records = read_results(folder)
    for row in rows_of({key: recorded_verdicts(lesson, key, result) for key, result in records.items()}):
        if row.verdict.claim.name == lesson.headline:
            version = stale_version(lesson.number, lesson.part_of(lesson.headline))
            return lesson.headline_caption, format_mean(row.verdict) + (f" ({version})" if version else "")
    return lesson.headline_caption, "not measured yet"


def lesson_table() -> str:
    """Return the front page's tables: the finished lessons with their results, then the planned ones, folded."""
    finished, planned = [], []
    for entry in lesson_entries():
        folder = lesson_folder(entry.number)
        title = f"[{entry.title}]({folder.relative_to(ROOT).as_posix()}/README.md)" if folder else entry.title
        if folder and entry.measured:
            caption, value = headline(load_lesson(entry.number)[0], folder)
            minutes = f"{entry.minutes} + {exercise_totals(folder).minutes}"
            finished.append(f"| {entry.number} | {title} | {entry.kind} | {minutes} | {caption}: {value} |")
        else:
            state = ", in progress" if folder else ""
            planned.append(f"| {entry.number} | {title}{state} | {entry.kind} | {entry.minutes} |")
    lines = [
        f"**{len(finished)} of {len(finished) + len(planned)} lessons are finished:**",
        "",
        "| | finished lesson | type | minutes: lesson + exercises | result on held-out data |",
        "|---|---|---|---|---|",
        *finished,
    ]
    if planned:
        lines += [
            "",
            f"<details><summary>{len(planned)} more lessons are planned, not finished</summary>",
            "",
            "| | planned lesson | type | minutes without exercises |",
            "|---|---|---|---|",
            *planned,
            "",
            "</details>",
        ]
    return "\n".join(lines)


def syllabus_table() -> str:
    """Return the table of finished lessons for instructors: minutes, exercises, run time and prerequisites."""
    lines = [
        "| lesson | minutes | exercises | minutes of exercises | points | run time per seed | prerequisites |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in lesson_entries():
        folder = lesson_folder(entry.number)
        if folder and entry.measured:
            lines.append(_syllabus_row(entry, folder))
    return "\n".join(lines)


def _syllabus_row(entry: LessonEntry, folder: Path) -> str:
    totals = exercise_totals(folder)
    record = read_results(folder).get(str(RecordKey("cpu", "cpu")))
    run_time = f"{seconds_per_seed(load_lesson(entry.number)[0], record, None) / 60:.0f} min" if record else "–"
    link = f"{entry.number} [{entry.title}](../../{folder.relative_to(ROOT).as_posix()}/README.md)"
    cells = (link, entry.minutes, totals.count, totals.minutes, totals.points, run_time, prerequisites(folder))
    return f"| {' | '.join(map(str, cells))} |"


def prerequisites(folder: Path) -> str:
    """Return the prerequisites that a lesson's page names, without links. Raises CourseError when it names none."""
    page = folder / "README.md"
    named = re.search(r" · prerequisites?: (.+?) · \[notebook\]", page.read_text(encoding="utf-8"))
    if named is None:
        raise CourseError(f"{page} names no prerequisites; expected a line with “ · prerequisites: … · [notebook](…)”")
    return re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", named[1])
