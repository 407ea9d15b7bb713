"""`make bench`: the course's speed beside others', in one run on this machine, into benchmarks/results.md.

python -m benchmarks [vit attention_cpu stdlib_engine toybox tokenizer distributed]

and, on a machine with a CUDA GPU, attention and throughput.
"""

import importlib
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from shared.course.machine import describe_machine

# Each has `measure()`, which returns rows of name, ours, theirs, ratio (above 1 we are ahead), unit.
PARTS = (
    "vit",
    "attention_cpu",
    "stdlib_engine",
    "toybox",
    "tokenizer",
    "distributed",
    *(("attention", "throughput") if torch.cuda.is_available() else ()),
)
HERE = Path(__file__).parent
COLUMNS = ("what", "ours", "theirs", "unit", "ratio (above 1 we are ahead)")


def cells(row: dict) -> tuple[str, ...]:
    """A row as the tables show it; where there is no rival there is no ratio."""
    theirs = "–" if row["theirs"] is None else f"{row['theirs']:,.4g}"
    ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}"
    return row["name"], f"{row['ours']:,.4g}", theirs, row["unit"], ratio


def page(results: dict[str, list[dict]]) -> str:
    """The tables as a Markdown page, under what they were measured on."""
    parts = [
        "# Benchmarks",
        "Written by `make bench`. Both sides of a row took turns in one process, so a busy moment of the machine hits them alike. "
        "What each part does stands at the head of its file.",
        f"{datetime.now(UTC):%Y-%m-%d}; " + "; ".join(f"{key} {value}" for key, value in describe_machine().items()),
    ]
    for part, rows in results.items():
        lines = [
            f"| {' | '.join(COLUMNS)} |",
            "|---|---|---|---|---|",
            *(f"| {' | '.join(cells(row))} |" for row in rows),
        ]
        parts.append(f"## [{part}]({part}.py)\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def main(asked: list[str]) -> int:
    if unknown := [name for name in asked if name not in PARTS]:
        print(f"error: no benchmark {', '.join(unknown)}; choose from {', '.join(PARTS)}", file=sys.stderr)
        return 2
    console, results = Console(), {}
    for part in asked or PARTS:
        console.print(f"measuring {part} …")
        results[part] = importlib.import_module(f"benchmarks.{part}").measure()
        table = Table(*COLUMNS, title=part, title_justify="left")
        for row in results[part]:
            table.add_row(*cells(row))
        console.print(table)
    if not asked:
        (HERE / "results.md").write_text(page(results), encoding="utf-8")
        console.print("written to benchmarks/results.md")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
