"""`make lesson-N`: train a lesson's arms, measure its claims, print the table, leave a report and figures.

python -m shared.course.run 1 --preset cpu --seeds 0 [--data NAME] [--device cuda] [--resume]
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shared.course.lesson import PRESETS, ROOT, Lesson, Run, load_lesson
from shared.course.machine import describe
from shared.course.verdicts import Verdict, judge, row
from shared.errors import CourseError

VERDICT_STYLE = {"reproduced": "green", "not at this scale": "yellow", "FAILED": "bold red", "measured": "dim"}


def choose_device(asked: str | None, preset: str) -> str:
    """The GPU for the `gpu` preset, the CPU otherwise, unless one is asked for by name.

    Raises CourseError where a GPU is wanted and there is none.
    """
    device = asked or ("cuda" if preset == "gpu" else "cpu")
    if device not in ("cpu", "cuda"):
        raise CourseError(f"device {device!r} is not known; choose cpu or cuda")
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise CourseError(
                f"{'PRESET=gpu' if not asked else 'DEVICE=cuda'} needs a CUDA GPU and PyTorch {torch.__version__} sees none; "
                "use PRESET=cpu, or see what `make doctor` says of the GPU"
            )
    return device


def train(
    number: int,
    preset: str,
    seeds: Sequence[int],
    *,
    data: str | None = None,
    device: str | None = None,
    resume: bool = False,
) -> Run:
    """Train every arm of a preset for every seed, each in a process of its own; returns what they measured.

    Raises CourseError for an unknown lesson, preset, data set or device, before anything is trained.
    """
    lesson, folder = load_lesson(number)
    if preset not in PRESETS:
        raise CourseError(f"preset {preset!r} is not known; choose one of {', '.join(PRESETS)}")
    data = data or lesson.data_sets[0]
    # “folder:PATH” stands for any folder of one's own images.
    if data.split(":")[0] not in {name.split(":")[0] for name in lesson.data_sets}:
        raise CourseError(
            f"data set {data!r} is not known to lesson {number}; choose one of {', '.join(lesson.data_sets)}"
        )
    device = choose_device(device, preset)
    arms = lesson.arms_of(preset)
    if not arms:
        raise CourseError(f"lesson {number} has nothing to run at preset {preset!r}")

    from shared.training import Job, run_jobs  # here, so that the errors above come before PyTorch is loaded

    place = (
        ROOT
        / "runs"
        / folder.name.replace("_", "-")
        / (preset if data == lesson.data_sets[0] else f"{preset}-{data.replace(':', '-').replace('/', '-')}")
    )
    jobs = [
        Job(
            name=f"{arm.name}" + (f" (seed {seed})" if len(seeds) > 1 else ""),
            function=arm.function,
            arguments={**arm.presets[preset], "seed": seed, "data": data, "device": device},
            folder=place / f"seed-{seed}" / arm.name,
        )
        for seed in seeds
        for arm in arms
    ]
    # One GPU is best used by one arm at a time; two cores by two.
    results = iter(run_jobs(jobs, workers=1 if device == "cuda" else 2, resume=resume).values())
    measured = {seed: {arm.name: next(results) for arm in arms} for seed in seeds}
    return Run(preset, device, data, tuple(seeds), place, measured)


def verdicts(lesson: Lesson, run: Run) -> list[Verdict]:
    """Judge every claim that the preset's arms can measure."""
    default_data = run.data == lesson.data_sets[0] or run.preset == "gpu"
    return [
        judge(claim, run.arms, judged=run.preset in claim.presets and (default_data or claim.kind == "exact"))
        for claim in lesson.claims_of(run.preset)
    ]


def claims_table(found: Sequence[Verdict]) -> Table:
    """The table that ends every run."""
    table = Table(title="What this run has measured", title_justify="left", show_lines=True, expand=True)
    for column, options in {
        "claim": {"ratio": 5}, "baseline": {"ratio": 2}, "measured": {"ratio": 2}, "threshold": {"ratio": 2}, "verdict": {"ratio": 2},
    }.items():  # fmt: skip
        table.add_column(column, **options)
    for verdict in found:
        cells = row(verdict)
        style = VERDICT_STYLE[cells["verdict"]]
        table.add_row(
            f"[dim]{cells['kind']}[/dim] {cells['claim']}", cells["baseline"], cells["measured"], cells["threshold"],
            f"[{style}]{cells['verdict']}[/{style}]",
        )  # fmt: skip
    return table


def markdown_table(found: Sequence[Verdict]) -> str:
    """The same table for a report."""
    lines = ["| kind | claim | baseline | measured | threshold | verdict |", "|---|---|---|---|---|---|"]
    lines += [
        "| "
        + " | ".join(row(verdict)[key] for key in ("kind", "claim", "baseline", "measured", "threshold", "verdict"))
        + " |"
        for verdict in found
    ]
    return "\n".join(lines)


def draw(lesson: Lesson, run: Run) -> list[Path]:
    """Draw the lesson's figures into the run's folder."""
    from shared import plots

    paths = []
    for name, figure in lesson.figures(run).items():
        path = run.folder / "figures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        plots.save(figure, path)
        paths.append(path)
    return paths


def write_report(lesson: Lesson, run: Run, found: Sequence[Verdict], figures: Sequence[Path], seconds: float) -> Path:
    """Everything a reader of the run wants later, as one Markdown page beside the figures."""
    about = describe(run.device)
    arms = "\n".join(
        f"| {name} | {seed} | {measured['_seconds']:.0f} s | {measured['_peak_memory_mb']:.0f} MB |"
        for seed, all_arms in run.arms.items()
        for name, measured in all_arms.items()
    )
    pictures = "\n\n".join(f"![{path.stem}](figures/{path.name})" for path in figures)
    page = f"""# Lesson {lesson.number}, preset {run.preset}, data {run.data}

{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {seconds:.0f} s in all, seeds {", ".join(map(str, run.seeds))}.

{markdown_table(found)}

| arm | seed | time | peak memory |
|---|---|---|---|
{arms}

{pictures}

{"; ".join(f"{key} {value}" for key, value in about.items())}
"""
    path = run.folder / "report.md"
    path.write_text(page, encoding="utf-8")
    (run.folder / "claims.json").write_text(
        json.dumps([row(verdict) for verdict in found], indent=1, ensure_ascii=False), encoding="utf-8"
    )
    return path


def run_lesson(number: int, preset: str, seeds: Sequence[int], **options) -> tuple[Lesson, Run, list[Verdict]]:
    """Train, judge, draw and report. The steps of `make lesson-N`, in order."""
    console = Console()
    started = time.monotonic()
    lesson, _ = load_lesson(number)
    run = train(number, preset, seeds, **options)
    found = verdicts(lesson, run)
    figures = draw(lesson, run)
    report = write_report(lesson, run, found, figures, time.monotonic() - started)
    console.print(claims_table(found))
    for verdict in found:
        if verdict.claim.reason and verdict.judged:
            console.print(f"[yellow]{verdict.claim.name}[/yellow]: {verdict.claim.reason}")
    console.print(f"{time.monotonic() - started:.0f} s; report and figures: {report.relative_to(ROOT)}")
    unexpected = [verdict for verdict in found if not verdict.as_expected]
    for verdict in unexpected:
        console.print(
            f"[bold red]{verdict.claim.name}[/bold red]: expected “{verdict.claim.expected}”, measured {row(verdict)['measured']}"
        )
    return lesson, run, found


def parser(description: str) -> argparse.ArgumentParser:
    """The options that running a lesson and writing its results share."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("lesson", help="the lesson's number")
    made.add_argument("--preset", default="cpu", help=" | ".join(PRESETS))
    made.add_argument("--seeds", nargs="+", default=["0"])
    made.add_argument("--data", help="a data set that the lesson knows")
    made.add_argument("--device", help="cpu or cuda")
    made.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    return made


def whole_number(text: str, what: str) -> int:
    """Raises CourseError where `text` is no whole number."""
    try:
        return int(text)
    except ValueError:
        raise CourseError(f"{what} {text!r} is not a whole number") from None


def main() -> int:
    arguments = parser(__doc__.splitlines()[0]).parse_args()
    try:
        _, _, found = run_lesson(
            whole_number(arguments.lesson, "lesson"), arguments.preset, [whole_number(seed, "seed") for seed in arguments.seeds],
            data=arguments.data, device=arguments.device, resume=arguments.resume,
        )  # fmt: skip
    except CourseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command with RESUME=1 goes on from here", file=sys.stderr)
        return 130
    return 0 if all(verdict.as_expected for verdict in found) else 1


if __name__ == "__main__":
    sys.exit(main())
