"""List the runs under runs/: how far each came, and the command that continues it (`make runs`).

python -m shared.course.runs [FOLDER]
"""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import safetensors
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from shared.cli import command_line
from shared.course.job_log import LOG
from shared.course.job_spec import Job
from shared.course.lesson import ROOT
from shared.course.records import JOB, DamagedRecord, read_job, read_json, read_progress, read_result
from shared.training.checkpoint import FILE_NAME
from shared.training.lock import is_locked
from shared.training.sharded_checkpoint import HEADER

COLUMNS = ("lesson", "preset", "seed", "arm", "state", "size", "last change")
OUTDATED = " (older code)"
STYLE = {"finished": "green", "running": "cyan", "failed": "bold red", "interrupted": "yellow", "waiting": "dim"}


@dataclass(frozen=True)
class RunStatus:
    """The state of one run: an arm of a lesson for one seed, or a training run outside of lessons.

    lesson     its number; "" for a run outside of lessons
    preset     followed by the data set if that is not the preset's own, as in "cpu-cifar10"
    state      one of the words in STYLE, and details
    arguments  of the arm's function
    """

    folder: Path
    lesson: str
    preset: str
    seed: str
    arm: str
    state: str
    arguments: dict

    @property
    def state_word(self) -> str:
        return self.state.split()[0].rstrip(":,")  # as in "failed: no such file"

    @property
    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]


def find_runs(runs: Path) -> list[RunStatus]:
    """Return the status of every run under `runs`, sorted by path: first the arms of lessons, then other runs."""
    jobs = [status for path in sorted(runs.rglob(JOB)) if (status := _job_status(runs, path.parent))]
    job_folders = {status.folder for status in jobs}
    folders = {path.parent for path in runs.rglob(FILE_NAME)} | {path.parents[1] for path in runs.rglob(HEADER)}
    others = [folder for folder in sorted(folders) if not job_folders.intersection((folder, *folder.parents))]
    return [*jobs, *(_training_status(runs, folder) for folder in others)]


def resume_commands(statuses: list[RunStatus]) -> Iterator[str]:
    """Yield the command that continues each lesson's run that is neither finished nor running now."""
    by_run: dict[tuple[str, str], list[RunStatus]] = {}
    for status in statuses:
        if status.lesson:
            by_run.setdefault((status.lesson, status.preset), []).append(status)
    for (lesson, name), arms in by_run.items():
        words = {arm.state_word for arm in arms}
        if words == {"finished"} or "running" in words:
            continue
        preset = name.split("-")[0]
        seeds = sorted({arm.seed for arm in arms}, key=int)
        parts = ["make", f"lesson-{lesson}", f"PRESET={preset}", f"SEED={shlex.quote(' '.join(seeds))}"]
        arguments: dict = next((arm.arguments for arm in arms if arm.arguments), {})  # a damaged job has none
        if name != preset and "data" not in arguments:
            continue
        if name != preset:
            parts.append(f"DATA={shlex.quote(arguments['data'])}")
        device = arguments.get("device", "cuda" if preset == "gpu" else "cpu")
        if device != ("cuda" if preset == "gpu" else "cpu"):
            parts.append(f"DEVICE={device}")
        yield " ".join([*parts, "RESUME=1"])


# ── The state of a run, read from its files ───────────────────────────────────────────────────────────────────────────


def _job_status(runs: Path, folder: Path) -> RunStatus | None:
    """Return the status of a job of the runner; None for a job.json that belongs to another program."""
    parts = folder.relative_to(runs).parts
    # lesson_05_llava/cpu/seed-0/name of the arm
    is_arm = len(parts) == 4 and bool(re.fullmatch(r"lesson_\d+\w*", parts[0]) and re.fullmatch(r"seed-\d+", parts[2]))
    try:
        job = read_job(folder)
        if job is None:  # removed meanwhile
            return None
        arguments, state = job["arguments"], _job_state(folder, job)
    except DamagedRecord as error:
        if not is_arm:
            return None
        arguments, state = {}, f"failed: {error.fault}; RESUME=1 runs this arm again"
    if is_arm:
        lesson, preset = str(int(parts[0].split("_")[1])), parts[1]
        return RunStatus(folder, lesson, preset, parts[2].removeprefix("seed-"), parts[3], state, arguments)
    return RunStatus(folder, "", "", str(arguments.get("seed", "")), "/".join(parts), state, arguments)


def _job_state(folder: Path, job: dict) -> str:
    try:
        progress = read_progress(folder) or {}
    except DamagedRecord:
        progress = {}
    if is_locked(folder):
        return f"running, step {progress['step']} of {progress['steps']}" if progress else "running"
    try:
        if read_result(folder) is not None:
            return "finished" + _outdated_note(folder, job)
    except DamagedRecord as error:
        return f"failed: {error.fault}; RESUME=1 runs this arm again"
    if error_line := _error_line(folder / "error.txt"):
        return f"failed: {error_line}"
    if not progress:
        started = (folder / LOG).exists()
        return "interrupted before its first step" if started else "waiting"
    label = f" of {progress['label']}" if progress["label"] else ""
    step = f"interrupted at step {progress['step']} of {progress['steps']}"
    return f"{step}{label}{_saved_note(folder)}{_outdated_note(folder, job)}"


def _outdated_note(folder: Path, job: dict) -> str:
    """Return OUTDATED when the code has changed since the job's fingerprint was taken: RESUME=1 would start over."""
    fingerprint = Job(job["name"], job["function"], job["arguments"], folder).fingerprint
    return "" if job["fingerprint"] == fingerprint else OUTDATED


def _saved_note(folder: Path) -> str:
    """Return the step of the newest checkpoint; an arm may train several models, each in its own folder."""
    paths = [*folder.rglob(FILE_NAME), *folder.rglob(HEADER)]
    if not paths:
        return ", nothing saved yet"
    newest = max(paths, key=lambda path: path.stat().st_mtime)
    header = _checkpoint_header(newest)
    return f", saved at {header['step']}" if header else f", {newest.name} damaged"


def _training_status(runs: Path, folder: Path) -> RunStatus:
    """Return the status of a training run that no job started, from its checkpoint."""
    headers = [_checkpoint_header(path) for path in (folder / FILE_NAME, *folder.glob(f"*/{HEADER}"))]
    header = max(headers, key=lambda header: header.get("step", -1))
    name = folder.relative_to(runs).as_posix()
    if is_locked(folder):
        state = "running"
    elif not header:
        state = f"failed: {FILE_NAME} is damaged or not from a training run"
    else:
        steps = header["settings"]["steps"]
        state = "finished" if header["step"] == steps else f"interrupted at step {header['step']} of {steps}"
    return RunStatus(folder, "", "", str(header["settings"]["seed"]) if header else "", name, state, {})


def _checkpoint_header(path: Path) -> dict:
    """Return the header of a checkpoint or a sharded checkpoint; {} when it cannot be read."""
    try:
        if path.name == HEADER:
            header = read_json(path)
        else:
            with safetensors.safe_open(path, framework="np") as file:
                header = json.loads((file.metadata() or {})["training"])
        complete = {"steps", "seed"} <= header["settings"].keys() and isinstance(header["step"], int)
    except (OSError, safetensors.SafetensorError, DamagedRecord, LookupError, TypeError, AttributeError, ValueError):
        return {}
    return header if complete else {}


def _error_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").strip().splitlines() if path.exists() else []
    if not lines:
        return ""
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]  # a traceback ends with the error


# ── Output ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def size_text(size: float) -> str:
    """Format a number of bytes: 512 B, 3.4 kB, 120 MB."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.0f} GB" if size >= 10 else f"{size:.1f} GB"


def table_cells(status: RunStatus) -> tuple[str, ...]:
    """Return the cells of a run's row, in the order of COLUMNS."""
    changed = max((path.stat().st_mtime for path in status.files), default=status.folder.stat().st_mtime)
    size = size_text(sum(path.stat().st_size for path in status.files))
    date = f"{datetime.fromtimestamp(changed):%Y-%m-%d %H:%M}"
    return status.lesson or "–", status.preset or "–", status.seed or "–", status.arm, status.state, size, date


def print_runs(runs: Path, terminal: bool) -> None:
    """Print a table on a terminal; otherwise lines of cells separated by tabs, for other programs."""
    statuses = find_runs(runs)
    if not statuses:
        print(f"no run yet under {runs}; start with `make lesson-1`")
    elif terminal:
        _print_table(statuses)
    else:
        for row in (COLUMNS, *map(table_cells, statuses)):
            print("\t".join(row))
        for command in resume_commands(statuses):
            print(f"to continue:\t{command}")


def _print_table(statuses: list[RunStatus]) -> None:
    console, table = Console(), Table(*COLUMNS)
    for status in statuses:
        *names, state, size, date = table_cells(status)
        table.add_row(*map(escape, names), Text(state, STYLE[status.state_word]), size, date)
    console.print(table)
    if any(OUTDATED in status.state for status in statuses):
        console.print("older code: the code has changed since, so RESUME=1 starts these runs over")
    commands = list(resume_commands(statuses))
    for command in commands:
        console.print(f"to continue: [bold]{command}[/bold]", soft_wrap=True)
    if not commands:
        console.print("no interrupted runs")


@command_line()
def main() -> None:
    parser = argparse.ArgumentParser(description="List runs, how far each came, and how to continue it.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "runs")
    print_runs(parser.parse_args().folder, sys.stdout.isatty())


if __name__ == "__main__":
    sys.exit(main())
