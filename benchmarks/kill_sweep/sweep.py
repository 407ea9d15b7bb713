"""Kills a training run again and again, and compares the end of each with that of an uninterrupted one."""

import multiprocessing
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.kill_sweep.compare import find_damage, find_differences
from benchmarks.kill_sweep.run import CHECKPOINTS, Plan, run_session
from benchmarks.kill_sweep.slow_disk import POINTS
from shared.errors import CourseError
from shared.training.checkpoint import FILE_NAME

RANDOM_MOMENT = "at a random moment of the run"
TEMPORARY_FILE = "a moment after a checkpoint's temporary file appears"
# In turn, so that a short sweep has some of each, and each point occurs often in a long one.
KILLS = tuple(kill for point in POINTS for kill in (RANDOM_MOMENT, point, TEMPORARY_FILE, RANDOM_MOMENT))


@dataclass
class SweepResult:
    """Hold what was done and what was found.

    counts  where a run was killed → how often, and how many of these runs ended as expected
    losses  descriptions of all differences; empty if nothing was lost
    """

    counts: dict[str, Counter] = field(default_factory=dict)
    runs: int = 0
    losses: list[str] = field(default_factory=list)

    def count(self, kill: str, what: str, number: int = 1) -> None:
        self.counts.setdefault(kill, Counter())[what] += number

    def total(self, what: str) -> int:
        return sum(counter[what] for counter in self.counts.values())


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run to compare with, and its duration in seconds."""

    folder: Path
    seconds: float


def run_reference(root: Path) -> Reference:
    """Train without interruption. Raises CourseError when two such runs differ, because then no comparison is valid."""
    folders = [root / "reference", root / "second reference"]
    seconds = [_run_to_end(folder, Plan(resume=False)) for folder in folders]
    if differences := find_differences(folders[1], folders[0]):
        raise CourseError(f"two uninterrupted runs differ: {differences[0]}")
    return Reference(folders[0], seconds[-1])  # the first run includes the loading of PyTorch


def sweep(
    reference: Reference,
    kills: int,
    seed: int,
    fault: str | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> SweepResult:
    """Kill `kills` times and compare the end of every run with `reference`; with a fault, until it is detected."""
    generator, result = random.Random(seed), SweepResult()
    for _ in range(2 * kills + 10):  # a kill may come too late, when the run has ended
        if result.total("kills") >= kills or (fault and result.losses):
            return result
        folder = reference.folder.with_name("killed")
        run_kills = _kill_and_resume(folder, reference.seconds, kills - result.total("kills"), generator, result, fault)
        differences = find_differences(folder, reference.folder)
        result.runs += 1
        description = ", then ".join(map(describe_kill, run_kills)) or "never"
        result.losses += [f"killed {description}: {difference}" for difference in differences]
        for kill in run_kills:
            result.count(kill, "weights", not any("metrics" not in difference for difference in differences))
            result.count(kill, "metrics", not any("metrics" in difference for difference in differences))
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".log").unlink(missing_ok=True)
        report(f"{result.total('kills')} of {kills} kills, {result.runs} runs, {len(result.losses)} losses")
    result.losses.append(f"only {result.total('kills')} of {kills} kills came in time")
    return result


def describe_kill(kill: str) -> str:
    """Return where a kill hit, as part of a sentence."""
    return f"while a checkpoint was written ({kill})" if kill in POINTS else kill


def _kill_and_resume(
    folder: Path, seconds: float, max_kills: int, generator: random.Random, result: SweepResult, fault: str | None
) -> list[str]:
    """Kill a run one to three times, at most `max_kills`, then let it end; return where it was killed."""
    kills: list[str] = []
    for _ in range(min(generator.randint(1, 3), max_kills)):
        kill = KILLS[result.total("kills") % len(KILLS)]
        checkpoint = generator.randint(1, CHECKPOINTS // (1 + len(kills)))  # fewer are left after each kill
        plan = Plan(resume=bool(kills), die_at=(kill, checkpoint) if kill in POINTS else None, fault=fault)
        process = _start(folder, plan)
        if kill == RANDOM_MOMENT:
            process.join(generator.uniform(0.0, seconds))
            process.kill()
        elif kill == TEMPORARY_FILE:
            _wait_for_temporary_file(folder, process, checkpoint)
            time.sleep(generator.uniform(0.0, plan.seconds_per_write))
            process.kill()
        process.join()
        if process.exitcode != -signal.SIGKILL:
            break  # the run had ended
        kills.append(kill)
        result.count(kill, "kills")
        result.count(kill, "while writing", kill in POINTS or _has_temporary_file(folder))
        result.losses += [f"killed {describe_kill(kill)}: {damage}" for damage in find_damage(folder)]
    _run_to_end(folder, Plan(fault=fault))
    return kills


def _start(folder: Path, plan: Plan) -> multiprocessing.Process:
    """Start a session in its own process, forked from one that has already loaded PyTorch."""
    folder.parent.mkdir(exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.kill_sweep.run"])
    process = context.Process(target=run_session, args=(folder, plan))
    process.start()
    return process


def _run_to_end(folder: Path, plan: Plan) -> float:
    started = time.monotonic()
    _start(folder, plan).join()
    return time.monotonic() - started


def _wait_for_temporary_file(folder: Path, process: multiprocessing.Process, number: int) -> None:
    """Wait until a checkpoint's temporary file has appeared for the `number`-th time, or the process has ended."""
    exists = False
    while process.exitcode is None and number:
        existed, exists = exists, _has_temporary_file(folder)
        number -= exists and not existed
        time.sleep(0.0005)


def _has_temporary_file(folder: Path) -> bool:
    return bool(list(folder.glob(f"{FILE_NAME}.*.part")))
