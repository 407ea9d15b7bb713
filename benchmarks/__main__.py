"""`make bench`: compare the course's speed with other libraries', and write the results to benchmarks/results.md.

python -m benchmarks [vit attention_cpu stdlib_engine toybox tokenizer generation distributed]

On a machine with a CUDA GPU, attention_gpu and throughput are measured as well.
"""

import importlib
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.report import COLUMNS, Row, machine_line, markdown_table
from shared.cli import command_line
from shared.errors import CourseError

# Each module has a function `measure()`, which returns rows.
MODULES = (
    "vit",
    "attention_cpu",
    "stdlib_engine",
    "toybox",
    "tokenizer",
    "generation",
    "distributed",
    *(("attention_gpu", "throughput") if torch.cuda.is_available() else ()),
)
RESULTS = Path(__file__).with_name("results.md")


def markdown_page(results: dict[str, list[Row]]) -> str:
    """Return the tables as a Markdown page."""
    parts = [
        "# Benchmarks",
        "Written by `make bench`. The two sides of a row were measured in turns in one process, so that a busy moment "
        "of the machine affects both alike. The docstring of each module describes what it measures.",
        f"{datetime.now(UTC):%Y-%m-%d}; {machine_line()}",
    ]
    for module, rows in results.items():
        parts.append(f"## [{module}]({module}.py)\n\n" + markdown_table(COLUMNS, [row.cells() for row in rows]))
    return "\n\n".join(parts) + "\n"


@command_line()
def main(selected: list[str]) -> None:
    if unknown := [name for name in selected if name not in MODULES]:
        raise CourseError(f"no benchmark {', '.join(unknown)}; choose from {', '.join(MODULES)}")
    console, results = Console(), {}
    for module in selected or MODULES:
        console.print(f"measuring {module} …")
        results[module] = importlib.import_module(f"benchmarks.{module}").measure()
        table = Table(*COLUMNS, title=module, title_justify="left")
        for row in results[module]:
            table.add_row(*row.cells())
        console.print(table)
    if not selected:
        RESULTS.write_text(markdown_page(results), encoding="utf-8")
        console.print("written to benchmarks/results.md")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
