"""Kill a training run again and again, with SIGKILL, and see whether anything is ever lost.

    python -m benchmarks.kill_sweep --kills 100 [--seed 0] [--page benchmarks/kill_sweep.md] [--plant-faults]

A small run with many checkpoints on a disk made slow is killed one to three times and each time started again by the same
call with `resume`. In the end its weights, averages, optimizer and random states must equal, byte for byte, those of a
run that was never cut, and its metrics file must hold every line once, in order, with equal values. After every single
kill, whatever checkpoints lie in the folder must be whole. Then a disk fills up while the run saves.

With `--plant-faults` faults are built into the loop (those named, or all of kill_sweep_child.FAULTS), and the sweep must
notice every one.
"""

import argparse
import multiprocessing
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import kill_sweep_disk
from benchmarks.kill_sweep_child import FAULTS, PLACES, STEPS, Plan, sit
from benchmarks.kill_sweep_compare import damaged, differences
from shared.course.machine import describe_machine
from shared.errors import CourseError
from shared.training.checkpoint import FILE_NAME

HERE = Path(__file__).parent
MOMENT = "at a random moment of the run"
APPEARED = "a moment after a checkpoint's temporary file appears"
# In turn, so that a short sweep has some of each, and each place comes often in a long one.
KILLS = tuple(kill for place in PLACES for kill in (MOMENT, place, APPEARED, MOMENT))
CHECKPOINTS = STEPS // 3


@dataclass
class Sweep:
    """What was done, and what came of it."""

    rows: dict[str, Counter] = field(default_factory=dict)  # where it was killed → counts
    runs: int = 0
    losses: list[str] = field(default_factory=list)  # what differed, in words; it should stay empty

    def count(self, where: str, what: str, number: int = 1) -> None:
        self.rows.setdefault(where, Counter())[what] += number

    def total(self, what: str) -> int:
        return sum(row[what] for row in self.rows.values())


@dataclass(frozen=True)
class Whole:
    """A run that was never cut, to compare with, and how long it took."""

    folder: Path
    seconds: float


def run_whole(place: Path) -> Whole:
    """Train in `place` without a cut. Raises CourseError when two such runs differ: then no comparison means anything."""
    seconds = [start_and_wait(place / name, Plan(resume=False)) for name in ("whole", "whole again")]
    if differing := differences(place / "whole again", place / "whole"):
        raise CourseError(f"two runs that were never cut differ: {differing[0]}")
    return Whole(place / "whole", seconds[-1])  # the first one waited for PyTorch


def sweep(
    whole: Whole, kills: int, seed: int, planted: str | None = None, said: Callable[[str], None] = lambda _: None
) -> Sweep:
    """Kill `kills` times and compare the end of every run with `whole`; with a fault planted, until it is noticed."""
    chance, done = random.Random(seed), Sweep()
    for _ in range(2 * kills + 10):  # a kill may come too late, when the run has ended by itself
        if done.total("kills") >= kills or (planted and done.losses):
            return done
        folder = whole.folder.with_name("killed")
        cuts = kill_and_resume(folder, whole.seconds, kills - done.total("kills"), chance, done, planted)
        losses = differences(folder, whole.folder)
        done.runs += 1
        done.losses += [f"killed {', then '.join(map(spoken, cuts)) or 'never'}: {loss}" for loss in losses]
        for where in cuts:
            done.count(where, "weights", not any("metrics" not in loss for loss in losses))
            done.count(where, "metrics", not any("metrics" in loss for loss in losses))
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".log").unlink(missing_ok=True)
        said(f"{done.total('kills')} of {kills} kills, {done.runs} runs, {len(done.losses)} losses")
    done.losses.append(f"only {done.total('kills')} of {kills} kills came in time")
    return done


def kill_and_resume(
    folder: Path, seconds: float, most: int, chance: random.Random, done: Sweep, planted: str | None
) -> list[str]:
    """Start a run, kill it one to three times, at most `most`, let it come to its end; return where it was killed."""
    cuts: list[str] = []
    for _ in range(min(chance.randint(1, 3), most)):
        where = KILLS[done.total("kills") % len(KILLS)]
        checkpoint = chance.randint(1, CHECKPOINTS // (1 + len(cuts)))  # fewer are left after each cut
        plan = Plan(resume=bool(cuts), die_at=(where, checkpoint) if where in PLACES else None, planted=planted)
        process = start(folder, plan)
        if where == MOMENT:
            process.join(chance.uniform(0.0, seconds))
            process.kill()
        elif where == APPEARED:
            wait_for_writing(folder, process, checkpoint)
            time.sleep(chance.uniform(0.0, plan.seconds_per_write))
            process.kill()
        process.join()
        if process.exitcode != -signal.SIGKILL:
            break  # the run had ended
        cuts.append(where)
        done.count(where, "kills")
        done.count(where, "inside", where in PLACES or has_half_written(folder))
        done.losses += [f"killed {spoken(where)}: {fault}" for fault in damaged(folder)]
    start_and_wait(folder, Plan(planted=planted))
    return cuts


def start(folder: Path, plan: Plan) -> multiprocessing.Process:
    """Begin a sitting in a process of its own, forked from one that has PyTorch loaded."""
    folder.parent.mkdir(exist_ok=True)
    process = context().Process(target=sit, args=(folder, plan))
    process.start()
    return process


def start_and_wait(folder: Path, plan: Plan) -> float:
    started = time.monotonic()
    start(folder, plan).join()
    return time.monotonic() - started


def context():
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["benchmarks.kill_sweep_child"])
    return forks


def wait_for_writing(folder: Path, process: multiprocessing.Process, number: int) -> None:
    """Return when the `number`-th temporary file of a checkpoint has appeared, or the process has ended."""
    there = False
    while process.exitcode is None and number:
        before, there = there, has_half_written(folder)
        number -= there and not before
        time.sleep(0.0005)


def has_half_written(folder: Path) -> bool:
    """Whether a checkpoint's temporary file lies in `folder`."""
    return bool(list(folder.glob(f"{FILE_NAME}.*.part")))


# ── What it shows ─────────────────────────────────────────────────────────────────────────────────────────────────────

COLUMNS = ("killed", "kills", "of them inside a checkpoint's writing", "bit-identical end", "unbroken metrics")


def spoken(where: str) -> str:
    return f"in its writing ({where})" if where in PLACES else where


def table_rows(done: Sweep) -> list[tuple[str, ...]]:
    keys = ("kills", "inside", "weights", "metrics")
    order = [where for where in (MOMENT, APPEARED, *PLACES) if where in done.rows]
    rows = [(spoken(where), *(str(done.rows[where][key]) for key in keys)) for where in order]
    return [*rows, ("in all", *(str(done.total(key)) for key in keys))]


def page(done: Sweep, seed: int, disk: list[dict], faults: dict[str, Sweep]) -> str:
    """The sweep's result as a Markdown page."""
    parts = [
        "# The kill sweep",
        "Written by `python -m benchmarks.kill_sweep`; what it does stands at the head of [kill_sweep.py](kill_sweep.py).",
        f"{datetime.now(UTC):%Y-%m-%d}, seed {seed}; "
        + "; ".join(f"{key} {value}" for key, value in describe_machine().items()),
        f"{done.total('kills')} kills of {done.runs} runs of {STEPS} steps with {CHECKPOINTS} checkpoints each; "
        f"{'nothing was lost' if not done.losses else f'{len(done.losses)} LOSSES'}.",
        markdown(COLUMNS, table_rows(done)),
        *(f"- {loss}" for loss in done.losses),
        "## A disk that fills up",
        markdown(kill_sweep_disk.COLUMNS, [tuple(row.values()) for row in disk]),
    ]
    if faults:
        rows = [
            (name, str(found.total("kills")), found.losses[0] if found.losses else "NOT NOTICED")
            for name, found in faults.items()
        ]
        parts += ["## Faults planted on purpose", markdown(("fault", "kills until it was noticed", "as what"), rows)]
    return "\n\n".join(parts) + "\n"


def markdown(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (columns, *rows)]
    return "\n".join([lines[0], "|---" * len(columns) + "|", *lines[1:]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, help="where to write the result as Markdown")
    parser.add_argument(
        "--plant-faults",
        nargs="*",
        metavar="FAULT",
        choices=FAULTS,
        help="see too that these faults, or all, are noticed",
    )
    given = parser.parse_args()
    planted = [] if given.plant_faults is None else given.plant_faults or list(FAULTS)
    console = Console()
    with console.status("starting") as status, tempfile.TemporaryDirectory() as place:
        whole = run_whole(Path(place))
        done = sweep(whole, given.kills, given.seed, said=status.update)
        faults = {name: sweep(whole, 12, given.seed, name) for name in planted}
        disk = kill_sweep_disk.outcomes()
    table = Table(*COLUMNS)
    for row in table_rows(done):
        table.add_row(*row)
    console.print(table)
    for row in disk:
        told = ", ".join(f"{key}: {value}" for key, value in row.items())
        console.print(f"full disk: {told}", markup=False, soft_wrap=True)
    missed = [name for name, found in faults.items() if not found.losses]
    for name, found in faults.items():
        console.print(
            f"planted: {name}: {found.losses[0] if found.losses else 'NOT NOTICED'}", markup=False, soft_wrap=True
        )
    for loss in done.losses:
        console.print(f"LOST: {loss}", markup=False, soft_wrap=True)
    if given.page:
        given.page.write_text(page(done, given.seed, disk, faults), encoding="utf-8")
    return 1 if done.losses or missed or any(row["as it should be"] != "yes" for row in disk) else 0


if __name__ == "__main__":
    sys.exit(main())
