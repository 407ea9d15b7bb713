"""Kill a training run again and again with SIGKILL, and check that nothing is ever lost.

    python -m benchmarks.kill_sweep --kills 100 [--seed 0] [--page benchmarks/kill_sweep/results.md] [--plant-faults]

A small run with many checkpoints on a slow disk is killed one to three times and restarted each time by the same call
with `resume`. In the end its weights, averages, optimizer and random states must equal those of an uninterrupted run
byte for byte, and its metrics file must have every line once, in order, with equal values. After every kill, all
checkpoints in the folder must be intact. Then a disk fills up while the run saves.

With `--plant-faults`, faults are built into the training loop (those named, or all), and the sweep must detect each.
"""

import argparse
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.kill_sweep import full_disk
from benchmarks.kill_sweep.faults import FAULTS
from benchmarks.kill_sweep.run import CHECKPOINTS, STEPS
from benchmarks.kill_sweep.slow_disk import POINTS
from benchmarks.kill_sweep.sweep import RANDOM_MOMENT, TEMPORARY_FILE, SweepResult, describe_kill, run_reference, sweep
from benchmarks.report import machine_line, markdown_table

COLUMNS = ("killed", "kills", "while a checkpoint was written", "bit-identical end", "complete metrics")
KILLS_PER_FAULT = 12  # at most; a fault is usually detected after two


def table_rows(result: SweepResult) -> list[tuple[str, ...]]:
    """Return the rows of the table under COLUMNS."""
    keys = ("kills", "while writing", "weights", "metrics")
    kills = [kill for kill in (RANDOM_MOMENT, TEMPORARY_FILE, *POINTS) if kill in result.counts]
    rows = [(describe_kill(kill), *(str(result.counts[kill][key]) for key in keys)) for kill in kills]
    return [*rows, ("total", *(str(result.total(key)) for key in keys))]


def markdown_page(result: SweepResult, seed: int, disk_rows: list[dict], faults: dict[str, SweepResult]) -> str:
    """Return the results as a Markdown page."""
    parts = [
        "# The kill sweep",
        "Written by `python -m benchmarks.kill_sweep`; [its docstring](__main__.py) describes what it does.",
        f"{datetime.now(UTC):%Y-%m-%d}, seed {seed}; {machine_line()}",
        f"{result.total('kills')} kills of {result.runs} runs of {STEPS} steps with {CHECKPOINTS} checkpoints each; "
        f"{'nothing was lost' if not result.losses else f'{len(result.losses)} LOSSES'}.",
        markdown_table(COLUMNS, table_rows(result)),
        *(f"- {loss}" for loss in result.losses),
        "## A disk that fills up",
        markdown_table(full_disk.COLUMNS, [tuple(row.values()) for row in disk_rows]),
    ]
    if faults:
        rows = [(name, str(each.total("kills")), first_loss(each)) for name, each in faults.items()]
        parts += ["## Planted faults", markdown_table(("fault", "kills until it was detected", "detected as"), rows)]
    return "\n\n".join(parts) + "\n"


def first_loss(result: SweepResult) -> str:
    """Return how a fault was detected."""
    return result.losses[0] if result.losses else "NOT DETECTED"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, help="where to write the results as Markdown")
    help_text = "also check that these faults, or all, are detected"
    parser.add_argument("--plant-faults", nargs="*", metavar="FAULT", choices=FAULTS, help=help_text)
    options = parser.parse_args()
    fault_names = [] if options.plant_faults is None else options.plant_faults or list(FAULTS)
    console = Console()
    with console.status("starting") as status, tempfile.TemporaryDirectory() as folder:
        reference = run_reference(Path(folder))
        result = sweep(reference, options.kills, options.seed, report=status.update)
        faults = {name: sweep(reference, KILLS_PER_FAULT, options.seed, name) for name in fault_names}
        disk_rows = full_disk.measure_full_disk()
    table = Table(*COLUMNS)
    for row in table_rows(result):
        table.add_row(*row)
    console.print(table)
    lines = [f"full disk: {', '.join(f'{key}: {value}' for key, value in row.items())}" for row in disk_rows]
    lines += [f"planted fault: {name}: {first_loss(each)}" for name, each in faults.items()]
    lines += [f"LOST: {loss}" for loss in result.losses]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    if options.page:
        options.page.write_text(markdown_page(result, options.seed, disk_rows, faults), encoding="utf-8")
    all_detected = all(each.losses for each in faults.values())
    disk_as_expected = all(row["as expected"] == "yes" for row in disk_rows)
    return 0 if not result.losses and all_detected and disk_as_expected else 1


if __name__ == "__main__":
    sys.exit(main())
