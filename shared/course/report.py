"""Show a run: the claims table in the terminal, and a report with figures in the run's folder."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from shared.course.claims import Verdict, claim_row
from shared.course.lesson import Lesson, Run
from shared.course.machine import describe_machine

COLUMNS = ("claim", "baseline", "measured", "threshold", "verdict")
VERDICT_STYLE = {"reproduced": "green", "not at this scale": "yellow", "FAILED": "bold red", "measured": "dim"}


def claims_table(verdicts: Sequence[Verdict]) -> Table:
    """Return the table that every run prints at its end."""
    table = Table(title="Claims measured by this run", title_justify="left", show_lines=True, expand=True)
    for column, ratio in zip(COLUMNS, (5, 2, 2, 2, 2), strict=True):
        table.add_column(column, ratio=ratio)
    for verdict in verdicts:
        cells = claim_row(verdict)
        cells["claim"] = f"[dim]{cells['kind']}[/dim] {cells['claim']}"
        style = VERDICT_STYLE[cells["verdict"]]
        cells["verdict"] = f"[{style}]{cells['verdict']}[/{style}]"
        table.add_row(*(cells[column] for column in COLUMNS))
    return table


def markdown_table(rows: Sequence[dict[str, str]]) -> str:
    """Return the same table in Markdown, from rows made by `claim_row` or read from `results.json`."""
    lines = [f"| {' | '.join(('kind', *COLUMNS))} |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [f"| {' | '.join(cells[column] for column in ('kind', *COLUMNS))} |" for cells in rows]
    return "\n".join(lines)


def draw_figures(lesson: Lesson, run: Run) -> list[Path]:
    """Draw the lesson's figures into the run's folder and return their paths."""
    from shared import plots

    paths = []
    for name, figure in lesson.figures(run).items():
        path = run.folder / "figures" / f"{name}.png"
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
        markdown_table([claim_row(verdict) for verdict in verdicts]),
        "\n".join(["| arm | seed | time | peak memory |", "|---|---|---|---|", *arms]),
        *(f"![{path.stem}](figures/{path.name})" for path in figures),
        "; ".join(f"{key} {value}" for key, value in describe_machine(run.device).items()),
    ]
    path = run.folder / "report.md"
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    claims = [{"name": verdict.claim.name, **claim_row(verdict), "values": verdict.values} for verdict in verdicts]
    (run.folder / "claims.json").write_text(json.dumps(claims, indent=1, ensure_ascii=False), encoding="utf-8")
    return path
