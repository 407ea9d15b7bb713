"""The generated parts of the READMEs: every number in them comes from a `results.json`.

A generated part stands between `<!-- results:begin -->` and `<!-- results:end -->`. A test compares what stands
there with what would be written now, so that prose and measurements can't drift apart.
"""

import json
from pathlib import Path

from shared.course.lesson import PRESETS, ROOT, Lesson, entries, lesson_folder, load_lesson
from shared.errors import CourseError

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def replace_generated(text: str, generated: str, where: str) -> str:
    """`text` with its generated part replaced. Raises CourseError where the markers are missing."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise CourseError(f"{where} needs exactly one {BEGIN} and one {END}, to hold the generated results")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{generated}\n{END}{rest.split(END)[1]}"


def _recorded(folder: Path) -> dict:
    path = folder / "results.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return dict(sorted(results.items(), key=lambda item: PRESETS.index(item[0].split("/")[0])))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def lesson_results(lesson: Lesson, folder: Path) -> str:
    """The block “what you should see” of a lesson: tables by preset, then the figures."""
    parts = []
    for key, result in _recorded(folder).items():
        preset, machine = key.split("/")[0], result["machine"]
        where = machine.get("gpu") or f"{machine['processor']}, {machine['cores']} cores"
        each = result["seconds"] / len(result["seeds"])
        command = f"make lesson-{lesson.number}" + ("" if preset == "cpu" else f" PRESET={preset}")
        rows = [
            f"| {claim['claim']} | {claim['baseline']} | {claim['measured']} | {claim['threshold']} | {claim['verdict']} |"
            for claim in result["claims"]
        ]
        reasons = [f"*Not at this scale:* {claim['reason']}" for claim in result["claims"] if claim["reason"]]
        peak = max(arm["peak_memory_mb"] for arm in result["arms"].values())
        parts.append(
            f"**`{command}`** — data: {result['data']}; {_duration(each)} a seed, at most {peak:.0f} MB an arm on {where} "
            f"(Python {machine['python']}, PyTorch {machine['torch']}, commit {machine['commit']}, {result['date']}); "
            f"mean of seeds {', '.join(map(str, result['seeds']))} ± half of the 95 % interval.\n\n"
            "| claim | baseline | measured | threshold | verdict |\n|---|---|---|---|---|\n" + "\n".join(rows)
            + ("\n\n" + "\n\n".join(reasons) if reasons else "")
        )  # fmt: skip
    for name, caption in lesson.captions.items():
        if (folder / "figures" / f"{name}.png").exists():
            parts.append(f"![{caption}](figures/{name}.png)\n\n*{caption}*")
    return "\n\n".join(parts) if parts else "*Not measured yet.*"


def headline(lesson: Lesson, folder: Path) -> str:
    """A lesson's one number for the front page: its headline claim from the largest preset that measured it."""
    for key, result in reversed(_recorded(folder).items()):
        for claim in result["claims"]:
            if claim["name"] == lesson.headline:
                return f"{claim['claim']} {claim['measured']} (`{key}`)"
    return "not measured yet"


def lesson_table() -> str:
    """The front page's table of all lessons."""
    lines = ["| | lesson | type | minutes | status | measured |", "|---|---|---|---|---|---|"]
    for entry in entries():
        folder = lesson_folder(entry.number)
        if folder:
            lesson, _ = load_lesson(entry.number)
            title, status, result = (
                f"[{entry.title}]({folder.relative_to(ROOT).as_posix()}/README.md)",
                "ready",
                headline(lesson, folder),
            )
        else:
            title, status, result = entry.title, "planned", ""
        lines.append(f"| {entry.number} | {title} | {entry.kind} | ~{entry.minutes} | {status} | {result} |")
    return "\n".join(lines)


def generated_pages() -> dict[Path, str]:
    """Every README with a generated part, as it should stand now."""
    pages = {ROOT / "README.md": lesson_table()}
    for entry in entries():
        if folder := lesson_folder(entry.number):
            pages[folder / "README.md"] = lesson_results(load_lesson(entry.number)[0], folder)
    return {
        path: replace_generated(path.read_text(encoding="utf-8"), part, path.relative_to(ROOT).as_posix())
        for path, part in pages.items()
    }


def write_readmes() -> None:
    """Write the generated parts."""
    for path, text in generated_pages().items():
        path.write_text(text, encoding="utf-8")
