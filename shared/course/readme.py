"""Generate the results in the READMEs: every number comes from a `results.json`.

A generated part stands between `<!-- results:begin -->` and `<!-- results:end -->`. A test compares it with what
would be generated now, so that pages and measurements cannot differ.
"""

from pathlib import Path

from shared.course.checkpoint import stale_version
from shared.course.claims import Verdict
from shared.course.course_report import PAGE, course_report
from shared.course.lesson import ROOT, Lesson, lesson_entries, lesson_folder, load_lesson
from shared.course.lesson_tables import lesson_table, syllabus_table
from shared.course.recorded_results import RecordKey, read_results, recorded_verdicts, seconds_per_seed
from shared.course.splits import splits_line
from shared.course.tables import is_exact, markdown_results, rows_of
from shared.errors import CourseError

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
NOT_MEASURED = "*Not measured yet.*"
SYLLABUS = ROOT / "shared" / "teaching" / "README.md"
"""The page with the table of lessons for instructors."""


def replace_generated(text: str, generated: str, page: str) -> str:
    """Return `text` with its generated part replaced. Raises CourseError, naming the page, when markers are missing."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise CourseError(f"{page} needs exactly one {BEGIN} and one {END}, to hold the generated results")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{generated}\n{END}{rest.split(END)[1]}"


def lesson_results(lesson: Lesson, folder: Path) -> str:
    """Return the generated part of a lesson's README: tables under questions, how they were measured, then figures.

    In a lesson whose parts all have folders, one table counts their claims, and the claims stand on the pages of the
    parts. A part without a folder has the lesson's own page, without the figures that other pages show.
    """
    own_part = next((part for part in lesson.parts if not (folder / part).is_dir()), None)
    if lesson.parts and own_part is None:
        blocks = [parts_table(lesson, read_results(folder))] if read_results(folder) else []
    else:
        blocks = part_blocks(lesson, folder, own_part)
    other_pages = [folder / part / "README.md" for part in lesson.parts if own_part not in (None, part)]
    others = "".join(page.read_text(encoding="utf-8") for page in other_pages)
    for name, caption in lesson.captions.items():
        if f"figures/{name}.png" not in others and (folder / "figures" / f"{name}.png").exists():
            blocks.append(f"![{caption}](figures/{name}.png)\n\n*{caption}*")
    return "\n\n".join(blocks) or NOT_MEASURED


def part_results(lesson: Lesson, folder: Path, part: str) -> str:
    """Return the generated part of a part's page. It has no figures: the page shows them in its text."""
    return "\n\n".join(part_blocks(lesson, folder, part)) or NOT_MEASURED


def part_blocks(lesson: Lesson, folder: Path, part: str | None) -> list[str]:
    """Return the tables of a part's claims and one line per preset that measured them; of all claims for None."""
    verdicts = {
        key: verdicts
        for key, result in read_results(folder).items()
        if (verdicts := verdicts_of(lesson, key, result, part))
    }
    if not verdicts:
        return []
    results = read_results(folder)
    names = {key: RecordKey.parse(key).label for key in verdicts}
    rows = rows_of({names[key]: each for key, each in verdicts.items()})
    lines = [run_summary(lesson, key, results[key], part) for key in verdicts]
    splits = splits_line([row.verdict.claim for row in rows], lesson.splits)
    tables = markdown_results(rows, _command(lesson, next(iter(verdicts)), part))
    return [tables, *([splits] if splits else []), *lines]


def verdicts_of(lesson: Lesson, key: str, result: dict, part: str | None) -> list[Verdict]:
    """Return the recorded verdicts of one part; all of them for None."""
    verdicts = recorded_verdicts(lesson, key, result)
    return [verdict for verdict in verdicts if part in (None, lesson.part_of(verdict.claim.name))]


def parts_table(lesson: Lesson, results: dict) -> str:
    """Return a table with, per part, how its claims came out, how many exact ones hold, and the time per seed."""
    lines = [
        "| part | reproduced | not reproduced | inconclusive | identities and bounds that hold | seconds per seed |",
        "|---|---|---|---|---|---|",
    ]
    (key, result), *_ = results.items()
    for part in lesson.parts:
        verdicts = verdicts_of(lesson, key, result, part)
        exact = [verdict.label == "reproduced" for verdict in verdicts if is_exact(verdict)]
        labels = [verdict.label for verdict in verdicts if not is_exact(verdict)]
        counts = [str(labels.count(label)) for label in ("reproduced", "not reproduced", "inconclusive")]
        hold = f"{sum(exact)} of {len(exact)}"
        seconds = f"{seconds_per_seed(lesson, result, part):.0f}"
        lines.append(f"| {' | '.join([f'[{part}]({part}/README.md)', *counts, hold, seconds])} |")
    return "\n".join([*lines, "", run_summary(lesson, key, result, None)])


def _command(lesson: Lesson, key: str, part: str | None) -> str:
    """Return the command that measures a record again."""
    record = RecordKey.parse(key)
    command = f"make lesson-{lesson.number}" + (f" PART={part}" if part else "")
    command += "" if record.preset == "cpu" else f" PRESET={record.preset}"
    return command + (f" DATA={record.data}" if record.data else "")


def run_summary(lesson: Lesson, key: str, result: dict, part: str | None) -> str:
    """Return one line: command, time per seed, peak memory per run, seeds, machine, versions, what ± covers."""
    machine, seeds, record = result["machine"], result["seeds"], RecordKey.parse(key)
    seconds = seconds_per_seed(lesson, result, part)
    duration = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    arm_names = {arm.name for arm in lesson.arms if part in (None, arm.part)}
    memory = max(arm["peak_memory_mb"] for name, arm in result["arms"].items() if name in arm_names)
    hardware = machine.get("gpu") or f"{machine['processor']}, {machine['cores']} cores"
    return (
        f"*`{_command(lesson, key, part)}`*: about {duration} per seed, at most {memory:,} MB per run, "
        f"on {hardware} (data {result['data']}; Python {machine['python']}, PyTorch {machine['torch']}, "
        f"commit {machine['commit']}, {result['date']}). Means over {len(seeds)} seeds; ± is half of their 95 % "
        f"interval.{'' if record.data else stale_note(lesson.number, part, record.preset)}"
    )


def stale_note(number: int, part: str | None, preset: str | None = None) -> str:
    """Return a sentence for results that were measured with an earlier version of the toy world, else nothing."""
    version = stale_version(number, part, preset)
    return f" Measured with version {version} of the toy world, to be measured again." if version else ""


def generated_pages() -> dict[Path, str]:
    """Return the current text of every README with a generated part."""
    parts = {ROOT / "README.md": lesson_table(), SYLLABUS: syllabus_table(), PAGE: course_report()}
    for entry in lesson_entries():
        if folder := lesson_folder(entry.number):
            lesson, _ = load_lesson(entry.number)
            parts[folder / "README.md"] = lesson_results(lesson, folder)
            for part in lesson.parts:
                if (folder / part).is_dir():
                    parts[folder / part / "README.md"] = part_results(lesson, folder, part)
    pages = {path: path.read_text(encoding="utf-8") for path in parts}
    return {path: replace_generated(text, parts[path], str(path.relative_to(ROOT))) for path, text in pages.items()}


def write_readmes() -> None:
    """Write the generated parts of all READMEs."""
    for path, text in generated_pages().items():
        path.write_text(text, encoding="utf-8")
