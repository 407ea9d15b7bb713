"""Generate the course's report: every claim of every lesson with its verdict and the publication's number.

The page is `docs/RESULTS.md`; `make report` writes it, and `make results-N` writes it together with the lesson's page.
Claims that are not reproduced or inconclusive come first, then a folded section per lesson.
"""

from collections import Counter
from pathlib import Path

from shared.course.checkpoint import stale_version
from shared.course.claims import MEASURED
from shared.course.lesson import ROOT, Lesson, LessonEntry, lesson_entries, lesson_folder, load_lesson
from shared.course.recorded_results import RecordKey, read_results, recorded_verdicts
from shared.course.splits import splits_line
from shared.course.tables import Row, by_question, exact_line, is_exact, markdown_table, rows_of

PAGE = ROOT / "docs" / "RESULTS.md"
COUNTED = ("reproduced", "not reproduced", "inconclusive")
OPEN = ("not reproduced", "inconclusive")
"""The verdicts whose rows stand before the lessons."""


def course_report() -> str:
    """Return the generated part of the report: verdicts per lesson, the open claims, then every claim, folded."""
    sections, lines, open_rows = [], [], []
    total: Counter[str] = Counter()
    for entry in lesson_entries():
        folder = lesson_folder(entry.number)
        if folder is None or not read_results(folder):
            continue
        lesson, _ = load_lesson(entry.number)
        rows = lesson_rows(lesson, folder)
        counts = count_verdicts(rows)
        total += counts
        page = f"../{folder.relative_to(ROOT).as_posix()}/README.md"
        lines.append(_counts_line(f"{entry.number} [{entry.title}]({page}){_stale_mark(lesson)}", counts))
        open_rows += [(lesson, row) for row in rows if not is_exact(row.verdict) and row.verdict.label in OPEN]
        sections.append(lesson_section(lesson, entry, rows, page))
    header = [
        "| lesson | reproduced | not reproduced | inconclusive | identities and bounds that hold |",
        "|---|---|---|---|---|",
    ]
    summary = "\n".join([*header, *lines, _counts_line("**all**", total)])
    return "\n\n".join([summary, *_open_sections(open_rows), *sections])


def lesson_rows(lesson: Lesson, folder: Path) -> list[Row]:
    """Return one row per claim of a lesson that is recorded."""
    records = read_results(folder)
    return rows_of({RecordKey.parse(key).label: recorded_verdicts(lesson, key, records[key]) for key in records})


def count_verdicts(rows: list[Row]) -> Counter[str]:
    """Return how often each verdict occurs; exact claims are counted as "exact" when they hold, else "failed exact"."""
    labels = [row.verdict.label for row in rows if not is_exact(row.verdict)]
    counts = Counter(label for label in labels if label != MEASURED)
    exact = [row.verdict.label == "reproduced" for row in rows if is_exact(row.verdict)]
    counts["exact"], counts["failed exact"] = sum(exact), len(exact) - sum(exact)
    return counts


def _counts_line(name: str, counts: Counter[str]) -> str:
    hold = f"{counts['exact']} of {counts['exact'] + counts['failed exact']}"
    return f"| {name} | {' | '.join(str(counts[label]) for label in COUNTED)} | {hold} |"


def _stale_parts(lesson: Lesson) -> tuple[str, list[str]] | None:
    """Return the toy world's version of outdated results, and their parts or presets ([] for all).

    None for current results.
    """
    if version := stale_version(lesson.number, None):
        return version, []
    parts = {part: stale_version(lesson.number, part) for part in lesson.parts}
    presets = {f"preset {preset}": stale_version(lesson.number, None, preset) for preset in lesson.data_sets}
    outdated = {name: version for name, version in (parts | presets).items() if version}
    return (next(iter(outdated.values())), list(outdated)) if outdated else None


def _stale_mark(lesson: Lesson) -> str:
    """Return " (toybox-1)" for a lesson to measure again, " (decoder: toybox-1)" for a part of it, else nothing."""
    if (stale := _stale_parts(lesson)) is None:
        return ""
    version, parts = stale
    return f" ({', '.join(parts)}: {version})" if parts else f" ({version})"


def _open_sections(rows: list[tuple[Lesson, Row]]) -> list[str]:
    """Return a table of the claims that are not reproduced, then one of the inconclusive claims."""
    blocks = []
    for label in OPEN:
        if labeled := [(lesson, row) for lesson, row in rows if row.verdict.label == label]:
            first_cells = [str(lesson.number) for lesson, _ in labeled]
            table = markdown_table([row for _, row in labeled], ("lesson", first_cells))
            blocks += [f"## {label.capitalize()}", table]
    return blocks


def lesson_section(lesson: Lesson, entry: LessonEntry, rows: list[Row], page: str) -> str:
    """Return the section of one lesson: folded tables, one per question, then the exact claims and the splits."""
    blocks = [f"## Lesson {lesson.number}: {entry.title}"]
    if stale := _stale_parts(lesson):
        version, parts = stale
        subject = f"{' and '.join(parts).capitalize()}: measured" if parts else "Measured"
        blocks.append(f"{subject} with version {version} of the toy world, to be measured again.")
    count = sum(not is_exact(row.verdict) for row in rows)
    blocks.append(f"<details><summary>{count} claims</summary>")
    for question, group in by_question(rows).items():
        blocks += [f"**{question}**", markdown_table(group)]
    if splits := splits_line([row.verdict.claim for row in rows], lesson.splits):
        blocks.append(splits)
    blocks.append("</details>")
    if exact := [row.verdict for row in rows if is_exact(row.verdict)]:
        blocks.append(f"{exact_line(exact, f'make lesson-{lesson.number}')} So does [its page]({page}).")
    return "\n\n".join(blocks)
