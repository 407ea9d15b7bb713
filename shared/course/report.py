"""Write the report of a run, with its figures, into the run's folder."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from shared.atomic import disk_errors, write_atomically
from shared.course.claims import Verdict, format_mean
from shared.course.lesson import Lesson, Run
from shared.course.machine import describe_machine
from shared.course.splits import splits_line
from shared.course.tables import Row, markdown_results


def draw_figures(lesson: Lesson, run: Run) -> list[Path]:
    """Draw the lesson's figures into the run's folder and return their paths."""
    from shared import plots

    paths = []
    for name, figure in lesson.figures(run).items():
        path = run.folder / "figures" / f"{name}.png"
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            plots.save(figure, path)
        paths.append(path)
    return paths


def write_report(
    lesson: Lesson, run: Run, verdicts: Sequence[Verdict], figures: Sequence[Path], seconds: float
) -> Path:
    """Write report.md (claims, costs, figures, machine) and claims.json into the run's folder; return the report."""
    arms = [
        f"| {name} | {seed} | {measured['_seconds']:.0f} s | {measured['_peak_memory_mb']:.0f} MB |"
        for seed, arms in run.arms.items()
        for name, measured in arms.items()
    ]
    blocks = [
        f"# Lesson {lesson.number}, preset {run.preset}, data {run.data}",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {seconds:.0f} s in total, seeds {', '.join(map(str, run.seeds))}.",
        markdown_results([Row(verdict) for verdict in verdicts], f"make lesson-{lesson.number}"),
        splits_line([verdict.claim for verdict in verdicts], lesson.splits),
        "\n".join(["| arm | seed | time | peak memory |", "|---|---|---|---|", *arms]),
        *(f"![{path.stem}](figures/{path.name})" for path in figures),
        "; ".join(f"{key} {value}" for key, value in describe_machine(run.device).items()),
    ]
    path = run.folder / "report.md"
    write_atomically(path, ("\n\n".join(filter(None, blocks)) + "\n").encode())
    claims = [
        {
            "name": verdict.claim.name,
            "sentence": verdict.claim.sentence,
            "measured": format_mean(verdict),
            "verdict": verdict.label,
            "as_expected": verdict.as_expected,
            "values": verdict.values,
        }
        for verdict in verdicts
    ]
    write_atomically(run.folder / "claims.json", json.dumps(claims, indent=1, ensure_ascii=False).encode())
    return path
