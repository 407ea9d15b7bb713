"""Generate the course's report: every claim of every lesson with its verdict and the publication's number.

The page is `docs/RESULTS.md`; `make report` writes it, and `make results-N` writes it together with the lesson's page.
"""

from collections import Counter
from pathlib import Path

from shared.course.claims import MEASURED
from shared.course.lesson import ROOT, Lesson, lesson_entries, lesson_folder, load_lesson
from shared.course.recorded_results import read_results, recorded_verdicts
from shared.course.splits import splits_line
from shared.course.tables import Row, by_question, is_identity, markdown_identities, markdown_table, rows_of

PAGE = ROOT / "docs" / "RESULTS.md"
COUNTED = ("reproduced", "not reproduced", "inconclusive")


def course_report() -> str:
    """Return the generated part of the report: a table that counts verdicts per lesson, then every claim."""
    sections, lines = [], []
    total: Counter[str] = Counter()
    for entry in lesson_entries():
        folder = lesson_folder(entry.number)
        if folder is None or not read_results(folder):
            continue
        lesson, _ = load_lesson(entry.number)
        rows = lesson_rows(lesson, folder)
        counts = count_verdicts(rows)
        total += counts
        link = f"[{entry.title}](../{folder.relative_to(ROOT).as_posix()}/README.md)"
        lines.append(_counts_line(f"{entry.number} {link}", counts))
        sections.append(lesson_section(lesson, entry.title, rows))
    header = ["| lesson | reproduced | not reproduced | inconclusive | identities that hold |", "|---|---|---|---|---|"]
    return "\n\n".join(["\n".join([*header, *lines, _counts_line("**all**", total)]), *sections])


def lesson_rows(lesson: Lesson, folder: Path) -> list[Row]:
    """Return one row per claim of a lesson that is recorded."""
    return rows_of({key: recorded_verdicts(lesson, key, result) for key, result in read_results(folder).items()})


def count_verdicts(rows: list[Row]) -> Counter[str]:
    """Return how often each verdict occurs; identities are counted as "identity" when they hold."""
    labels = ["identity" if is_identity(row.verdict) else row.verdict.label for row in rows]
    failed = sum(is_identity(row.verdict) and row.verdict.label != "reproduced" for row in rows)
    counts = Counter(label for label in labels if label != MEASURED)
    counts["identity"] -= failed
    counts["failed identity"] = failed
    return counts


def _counts_line(name: str, counts: Counter[str]) -> str:
    hold = f"{counts['identity']} of {counts['identity'] + counts['failed identity']}"
    return f"| {name} | {' | '.join(str(counts[label]) for label in COUNTED)} | {hold} |"


def lesson_section(lesson: Lesson, title: str, rows: list[Row]) -> str:
    """Return the section of one lesson: a table per question, then its identities and its splits."""
    blocks = [f"## Lesson {lesson.number}: {title}"]
    for question, group in by_question(rows).items():
        blocks += [f"**{question}**", markdown_table(group)]
    if identities := [row.verdict for row in rows if is_identity(row.verdict)]:
        blocks.append(markdown_identities(identities, f"make lesson-{lesson.number}"))
    if splits := splits_line([row.verdict.claim for row in rows], lesson.splits):
        blocks.append(splits)
    return "\n\n".join(blocks)
