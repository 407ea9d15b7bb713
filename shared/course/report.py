"""Show a run: the claims table in the terminal, and a report with figures in the run's folder."""

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shared.atomic import disk_errors, write_atomically
from shared.course.claims import Verdict, claim_row
from shared.course.lesson import Lesson, Run
from shared.course.machine import describe_machine

COLUMNS = ("claim", "baseline", "measured", "threshold", "verdict")
RATIOS = (5, 2, 2, 2, 2)
"""The widths of the columns relative to each other."""
VERDICT_STYLE = {"reproduced": "green", "not at this scale": "yellow", "FAILED": "bold red", "measured": "dim"}


def claims_table(verdicts: Sequence[Verdict]) -> Table:
    """Return the table that every run prints at its end."""
    table = Table(title="Claims measured by this run", title_justify="left", show_lines=True, expand=True)
    for column, ratio in zip(COLUMNS, RATIOS, strict=True):
        table.add_column(column, ratio=ratio)
    for verdict in verdicts:
        cells = claim_row(verdict)
        cells["claim"] = f"[dim]{cells['kind']}[/dim] {cells['claim']}"
        style = VERDICT_STYLE[cells["verdict"]]
        cells["verdict"] = f"[{style}]{cells['verdict']}[/{style}]"
        table.add_row(*(cells[column] for column in COLUMNS))
    return table


def claims_console(verdicts: Sequence[Verdict], console: Console | None = None) -> Console:
    """Return the console for the claims table. A file or a pipe, which has no width, gets one that breaks no word."""
    console = console or Console()
    if console.is_terminal:
        return console
    rows = [claim_row(verdict) for verdict in verdicts]
    needed = 0
    for column, ratio in zip(COLUMNS, RATIOS, strict=True):
        words = [column, *(word for row in rows for word in f"{row['kind']} {row[column]}".split())]
        # A column has a space on both sides and a line; its share of the width may be rounded down.
        needed = max(needed, math.ceil((max(map(len, words)) + 4) * sum(RATIOS) / ratio))
    return Console(file=console.file, width=max(console.width, needed))


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
        markdown_table([claim_row(verdict) for verdict in verdicts]),
        "\n".join(["| arm | seed | time | peak memory |", "|---|---|---|---|", *arms]),
        *(f"![{path.stem}](figures/{path.name})" for path in figures),
        "; ".join(f"{key} {value}" for key, value in describe_machine(run.device).items()),
    ]
    path = run.folder / "report.md"
    write_atomically(path, ("\n\n".join(blocks) + "\n").encode())
    claims = [{"name": verdict.claim.name, **claim_row(verdict), "values": verdict.values} for verdict in verdicts]
    write_atomically(run.folder / "claims.json", json.dumps(claims, indent=1, ensure_ascii=False).encode())
    return path
