"""The generated parts of the READMEs: every number in them comes from a `results.json`.

A generated part stands between `<!-- results:begin -->` and `<!-- results:end -->`. A test compares what stands
there with what would be written now, so that prose and measurements can't drift apart.
"""

import json
from pathlib import Path

from shared.course.lesson import PRESETS, ROOT, Lesson, lesson_entries, lesson_folder, load_lesson
from shared.course.report import markdown_table
from shared.errors import CourseError

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def read_results(folder: Path) -> dict:
    """A lesson's recorded results, the smallest preset first; empty when none are recorded yet."""
    path = folder / "results.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return dict(sorted(results.items(), key=lambda item: PRESETS.index(item[0].split("/")[0])))


def replace_generated(text: str, generated: str, where: str) -> str:
    """`text` with its generated part replaced. Raises CourseError where the markers are missing."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise CourseError(f"{where} needs exactly one {BEGIN} and one {END}, to hold the generated results")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{generated}\n{END}{rest.split(END)[1]}"


def lesson_results(lesson: Lesson, folder: Path) -> str:
    """The block “what you should see” of a lesson: a table for each preset, then the figures.

    In a lesson of several parts the table counts their claims; the claims themselves stand on the parts' pages.
    """
    blocks = [preset_results(lesson, key, result) for key, result in read_results(folder).items()]
    for name, caption in lesson.captions.items():
        if (folder / "figures" / f"{name}.png").exists():
            blocks.append(f"![{caption}](figures/{name}.png)\n\n*{caption}*")
    return "\n\n".join(blocks) or "*Not measured yet.*"


def part_results(lesson: Lesson, folder: Path, part: str) -> str:
    """The same of one part, without figures: a part's page shows each beside the words that explain it."""
    blocks = [preset_results(lesson, key, result, part) for key, result in read_results(folder).items()]
    return "\n\n".join(blocks) or "*Not measured yet.*"


def claims_of(lesson: Lesson, result: dict, part: str | None) -> list[dict]:
    """The recorded claims of one part; all of them where none is named."""
    return [claim for claim in result["claims"] if part in (None, lesson.part_of(claim["name"]))]


def parts_table(lesson: Lesson, result: dict) -> str:
    """How many claims of each kind each part has, of how many the run has found what was expected, and how long that took."""
    lines = ["| part | exact | learns | paper | reproduced | seconds a seed |", "|---|---|---|---|---|---|"]
    for part in lesson.parts:
        claims = claims_of(lesson, result, part)
        kinds = [str(sum(claim["kind"] == kind for claim in claims)) for kind in ("exact", "learns", "paper")]
        judged = [claim["verdict"] for claim in claims if claim["verdict"] != "measured"]
        found = f"{judged.count('reproduced')} of {len(judged)}"
        cells = [f"[{part}]({part}/README.md)", *kinds, found, f"{seconds(lesson, result, part):.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def seconds(lesson: Lesson, result: dict, part: str | None) -> float:
    """What a seed takes, of all arms or of one part's, where as many run side by side as `make lesson-N` lets."""
    if part is None:
        return result["seconds"] / len(result["seeds"])
    costs = {name: sum(arm["seconds"]) for name, arm in result["arms"].items()}
    own = sum(costs[arm.name] for arm in lesson.arms if arm.part == part and arm.name in costs)
    return result["seconds"] / len(result["seeds"]) * own / sum(costs.values())


def preset_results(lesson: Lesson, key: str, result: dict, part: str | None = None) -> str:
    """One preset's table, under the command that measures it and what it was measured on."""
    (preset, _, *data), machine, seeds = key.split("/"), result["machine"], result["seeds"]
    each = seconds(lesson, result, part)
    duration = f"{each:.0f} s" if each < 120 else f"{each / 60:.0f} min"
    own = {arm.name for arm in lesson.arms if part in (None, arm.part)}
    memory = max(arm["peak_memory_mb"] for name, arm in result["arms"].items() if name in own)
    where = machine.get("gpu") or f"{machine['processor']}, {machine['cores']} cores"
    command = f"make lesson-{lesson.number}" + (f" PART={part}" if part else "")
    command += "" if preset == "cpu" else f" PRESET={preset}"
    command += f" DATA={data[0]}" if data else ""
    blocks = [
        f"**`{command}`**: about {duration} a seed and at most {memory:,} MB an arm on {where} "
        f"(data: {result['data']}; Python {machine['python']}, PyTorch {machine['torch']}, commit {machine['commit']}, "
        f"{result['date']}). Mean of seeds {', '.join(map(str, seeds))} ± half of the 95 % interval.",
    ]
    if lesson.parts and part is None:
        return "\n\n".join([*blocks, parts_table(lesson, result)])
    claims = claims_of(lesson, result, part)
    blocks.append(markdown_table(claims))
    blocks += [f"*Not at this scale:* {claim['reason']}" for claim in claims if claim["reason"]]
    return "\n\n".join(blocks)


def headline(lesson: Lesson, folder: Path) -> str:
    """A lesson's one number for the front page: its headline claim, as the largest preset has measured it."""
    for key, result in reversed(read_results(folder).items()):
        for claim in result["claims"]:
            if claim["name"] == lesson.headline:
                return f"{lesson.headline_caption}: {claim['measured']} (`{key.split('/')[0]}`)"
    return "not measured yet"


def lesson_table() -> str:
    """The front page's table of all lessons."""
    lines = ["| | lesson | type | minutes | status | measured |", "|---|---|---|---|---|---|"]
    for entry in lesson_entries():
        title, status, result = entry.title, "planned", ""
        if folder := lesson_folder(entry.number):
            title = f"[{title}]({folder.relative_to(ROOT).as_posix()}/README.md)"
            status, result = "ready", headline(load_lesson(entry.number)[0], folder)
        lines.append(f"| {entry.number} | {title} | {entry.kind} | ~{entry.minutes} | {status} | {result} |")
    return "\n".join(lines)


def generated_pages() -> dict[Path, str]:
    """Every README with a generated part, as it should stand now."""
    parts = {ROOT / "README.md": lesson_table()}
    for entry in lesson_entries():
        if folder := lesson_folder(entry.number):
            lesson, _ = load_lesson(entry.number)
            parts[folder / "README.md"] = lesson_results(lesson, folder)
            parts |= {folder / part / "README.md": part_results(lesson, folder, part) for part in lesson.parts}
    pages = {path: path.read_text(encoding="utf-8") for path in parts}
    return {path: replace_generated(text, parts[path], str(path.relative_to(ROOT))) for path, text in pages.items()}


def write_readmes() -> None:
    """Write the generated parts."""
    for path, text in generated_pages().items():
        path.write_text(text, encoding="utf-8")
