"""Generate the results in the READMEs: every number comes from a `results.json`.

A generated part stands between `<!-- results:begin -->` and `<!-- results:end -->`. A test compares it with what
would be generated now, so that pages and measurements cannot differ.
"""

import json
from pathlib import Path

from shared.course.checkpoint import stale_list
from shared.course.lesson import PRESETS, ROOT, Lesson, lesson_entries, lesson_folder, load_lesson
from shared.course.report import markdown_table
from shared.errors import CourseError

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
NOT_MEASURED = "*Not measured yet.*"


def read_results(folder: Path) -> dict:
    """Return a lesson's recorded results, the smallest preset first; empty when nothing is recorded."""
    path = folder / "results.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return dict(sorted(results.items(), key=lambda item: PRESETS.index(item[0].split("/")[0])))


def replace_generated(text: str, generated: str, page: str) -> str:
    """Return `text` with its generated part replaced. Raises CourseError, naming the page, when markers are missing."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise CourseError(f"{page} needs exactly one {BEGIN} and one {END}, to hold the generated results")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{generated}\n{END}{rest.split(END)[1]}"


def lesson_results(lesson: Lesson, folder: Path) -> str:
    """Return the generated part of a lesson's README: a table per preset, then the figures.

    In a lesson whose parts all have folders, the table counts their claims, and the claims stand on the pages of the
    parts. A part without a folder has the lesson's own page, without the figures that other pages show.
    """
    own_part = next((part for part in lesson.parts if not (folder / part).is_dir()), None)
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
    """Return the block of every preset that has measured claims of a part; of every preset for None."""
    results = read_results(folder)
    return [
        preset_results(lesson, key, result, part)
        for key, result in results.items()
        if part is None or claims_of(lesson, result, part)
    ]


def claims_of(lesson: Lesson, result: dict, part: str | None) -> list[dict]:
    """Return the recorded claims of one part; all of them for None."""
    return [claim for claim in result["claims"] if part in (None, lesson.part_of(claim["name"]))]


def parts_table(lesson: Lesson, result: dict) -> str:
    """Return a table with, per part, the number of claims of each kind, how many were reproduced, and the time."""
    lines = ["| part | exact | learns | paper | reproduced | seconds per seed |", "|---|---|---|---|---|---|"]
    for part in lesson.parts:
        claims = claims_of(lesson, result, part)
        kinds = [str(sum(claim["kind"] == kind for claim in claims)) for kind in ("exact", "learns", "paper")]
        judged = [claim["verdict"] for claim in claims if claim["verdict"] != "measured"]
        reproduced = f"{judged.count('reproduced')} of {len(judged)}"
        seconds = f"{seconds_per_seed(lesson, result, part):.0f}"
        lines.append(f"| {' | '.join([f'[{part}]({part}/README.md)', *kinds, reproduced, seconds])} |")
    return "\n".join(lines)


def seconds_per_seed(lesson: Lesson, result: dict, part: str | None) -> float:
    """Return the seconds per seed of all arms or one part's, with as many side by side as `make lesson-N` runs."""
    total = result["seconds"] / len(result["seeds"])
    if part is None:
        return total
    costs = {name: sum(arm["seconds"]) for name, arm in result["arms"].items()}
    part_cost = sum(costs[arm.name] for arm in lesson.arms if arm.part == part and arm.name in costs)
    return total * part_cost / sum(costs.values())


def preset_results(lesson: Lesson, key: str, result: dict, part: str | None = None) -> str:
    """Return one preset's table under the command that measures it and the machine that it was measured on."""
    claims = claims_of(lesson, result, part)
    summary = run_summary(lesson, key, result, part)
    if lesson.parts and part is None:
        return f"{summary}\n\n{parts_table(lesson, result)}"
    reasons = [f"*Not at this scale:* {claim['reason']}" for claim in claims if claim["reason"]]
    return "\n\n".join([summary, markdown_table(claims), *reasons])


def run_summary(lesson: Lesson, key: str, result: dict, part: str | None) -> str:
    """Return one paragraph: command, time per seed, peak memory per arm, machine, versions, seeds."""
    (preset, _, *data), machine, seeds = key.split("/"), result["machine"], result["seeds"]
    seconds = seconds_per_seed(lesson, result, part)
    duration = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    arm_names = {arm.name for arm in lesson.arms if part in (None, arm.part)}
    memory = max(arm["peak_memory_mb"] for name, arm in result["arms"].items() if name in arm_names)
    hardware = machine.get("gpu") or f"{machine['processor']}, {machine['cores']} cores"
    command = f"make lesson-{lesson.number}" + (f" PART={part}" if part else "")
    command += "" if preset == "cpu" else f" PRESET={preset}"
    command += f" DATA={data[0]}" if data else ""
    return (
        f"**`{command}`**: about {duration} per seed and at most {memory:,} MB per arm on {hardware} "
        f"(data: {result['data']}; Python {machine['python']}, PyTorch {machine['torch']}, commit {machine['commit']}, "
        f"{result['date']}). Mean over seeds {', '.join(map(str, seeds))} ± half of the 95 % confidence interval."
        f"{'' if data else stale_note(lesson.number, part)}"
    )


def stale_note(number: int, part: str | None) -> str:
    """Return a sentence for results that were measured with an earlier version of the toy world, else nothing."""
    version = stale_version(number, part)
    return f" Measured with version {version} of the toy world, to be measured again." if version else ""


def stale_version(number: int, part: str | None) -> str | None:
    """Return the earlier version of the toy world that results were measured with; None for current results."""
    stale = stale_list()
    return stale["toybox_version"] if {str(number), f"{number}/{part}"} & set(stale["results"]) else None


def headline(lesson: Lesson, folder: Path) -> str:
    """Return a lesson's number for the front page: its headline claim, as measured by the largest preset."""
    for key, result in reversed(read_results(folder).items()):
        for claim in result["claims"]:
            if claim["name"] == lesson.headline:
                version = stale_version(lesson.number, lesson.part_of(claim["name"]))
                preset = f"`{key.split('/')[0]}`" + (f", {version}" if version else "")
                return f"{lesson.headline_caption}: {claim['measured']} ({preset})"
    return "not measured yet"


def lesson_table() -> str:
    """Return the front page's table of all lessons."""
    lines = ["| | lesson | type | minutes | status | measured |", "|---|---|---|---|---|---|"]
    for entry in lesson_entries():
        title, status, result = entry.title, "planned", ""
        if folder := lesson_folder(entry.number):
            title = f"[{title}]({folder.relative_to(ROOT).as_posix()}/README.md)"
            status = "ready" if entry.measured else "in progress"
            result = headline(load_lesson(entry.number)[0], folder)
        lines.append(f"| {entry.number} | {title} | {entry.kind} | ~{entry.minutes} | {status} | {result} |")
    return "\n".join(lines)


def generated_pages() -> dict[Path, str]:
    """Return the current text of every README with a generated part."""
    parts = {ROOT / "README.md": lesson_table()}
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
