"""`make runs`: what lies under runs/, how far each run came, and the command that goes on with it.

python -m shared.course.runs [FOLDER]
"""

import json
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

from shared.course.job_spec import Job
from shared.course.lesson import ROOT
from shared.training.checkpoint import FILE_NAME
from shared.training.lock import in_use
from shared.training.sharded_checkpoint import HEADER

COLUMNS = ("lesson", "preset", "seed", "arm", "state", "size", "last change")
OLDER = " (older code)"
STYLE = {"finished": "green", "running": "cyan", "failed": "bold red", "cut": "yellow", "waiting": "dim"}


@dataclass(frozen=True)
class Found:
    """One run under runs/: an arm of a lesson for one seed, or a training in a folder of its own."""

    folder: Path
    lesson: str  # its number, "" where the run is no lesson's
    place: str  # the preset, with the data set behind it where that is not the preset's own
    seed: str
    arm: str
    state: str  # a word of STYLE, and what there is to say
    arguments: dict

    @property
    def word(self) -> str:
        return self.state.split()[0].rstrip(":,")  # as in "failed: no such file"

    @property
    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]


def find_runs(runs: Path) -> list[Found]:
    """Everything under `runs` that has been trained there, in the order of its path."""
    tickets = [path for path in sorted(runs.rglob("job.json")) if "fingerprint" in _read(path)]
    jobs = {path.parent for path in tickets}
    folders = {path.parent for path in runs.rglob(FILE_NAME)} | {path.parents[1] for path in runs.rglob(HEADER)}
    own = [folder for folder in sorted(folders) if not jobs.intersection((folder, *folder.parents))]
    return [*(_of_job(runs, ticket) for ticket in tickets), *(_of_its_own(runs, folder) for folder in own)]


def commands(found: list[Found]) -> Iterator[str]:
    """The command that goes on with each lesson's run that is neither finished nor running now."""
    together: dict[tuple[str, str], list[Found]] = {}
    for run in found:
        if run.lesson:
            together.setdefault((run.lesson, run.place), []).append(run)
    for (lesson, place), arms in together.items():
        words = {arm.word for arm in arms}
        if words == {"finished"} or "running" in words:
            continue
        preset = place.split("-")[0]
        seeds = sorted({arm.seed for arm in arms}, key=int)
        parts = ["make", f"lesson-{lesson}", f"PRESET={preset}", f"SEED={shlex.quote(' '.join(seeds))}"]
        if place != preset:
            parts.append(f"DATA={shlex.quote(arms[0].arguments['data'])}")
        device = arms[0].arguments.get("device", "cpu")
        if device != ("cuda" if preset == "gpu" else "cpu"):
            parts.append(f"DEVICE={device}")
        yield " ".join([*parts, "RESUME=1"])


def _of_job(runs: Path, path: Path) -> Found:
    ticket = _read(path)
    parts = path.parent.relative_to(runs).parts
    # lesson_05_vae/cpu/seed-0/the arm's name
    if len(parts) == 4 and parts[0].startswith("lesson_") and parts[2].startswith("seed-"):
        lesson, place = str(int(parts[0].split("_")[1])), parts[1]
        seed, arm = parts[2].removeprefix("seed-"), parts[3]
    else:
        lesson, place, seed, arm = "", "", str(ticket.get("arguments", {}).get("seed", "")), "/".join(parts)
    return Found(path.parent, lesson, place, seed, arm, _state(path.parent, ticket), ticket.get("arguments", {}))


def _state(folder: Path, ticket: dict) -> str:
    if in_use(folder):
        report = _read(folder / "progress.json")
        return f"running, step {report['step']} of {report['steps']}" if report else "running"
    if (folder / "result.json").exists():
        return "finished" + _of_older_code(folder, ticket)
    if error := _first_error(folder / "error.txt"):
        return f"failed: {error}"
    report = _read(folder / "progress.json")
    if not report:
        begun = (folder / "log.txt").exists()
        return "cut before its first step" if begun else "waiting"
    label = f" of {report['label']}" if report["label"] else ""
    return f"cut at step {report['step']} of {report['steps']}{label}{_saved(folder)}{_of_older_code(folder, ticket)}"


def _of_older_code(folder: Path, ticket: dict) -> str:
    """A job is kept under a fingerprint that knows the code too: RESUME=1 begins afresh where that has changed."""
    now = Job(ticket["name"], ticket["function"], ticket["arguments"], folder).fingerprint
    return "" if ticket["fingerprint"] == now else OLDER


def _saved(folder: Path) -> str:
    """Say of which step the newest checkpoint is; an arm may train several models, each in a folder of its own."""
    saved = [*folder.rglob(FILE_NAME), *folder.rglob(HEADER)]
    if not saved:
        return ", nothing saved yet"
    newest = max(saved, key=lambda path: path.stat().st_mtime)
    header = _header(newest)
    return f", saved at {header['step']}" if header else f", {newest.name} damaged"


def _of_its_own(runs: Path, folder: Path) -> Found:
    """A training that no job stands behind: what its checkpoint says of it."""
    headers = [_header(path) for path in (folder / FILE_NAME, *folder.glob(f"*/{HEADER}"))]
    header = max(headers, key=lambda header: header.get("step", -1))
    name = folder.relative_to(runs).as_posix()
    if in_use(folder):
        state = "running"
    elif not header:
        state = f"failed: {FILE_NAME} is damaged or not from a training run"
    else:
        steps = header["settings"]["steps"]
        state = "finished" if header["step"] == steps else f"cut at step {header['step']} of {steps}"
    return Found(folder, "", "", str(header["settings"]["seed"]) if header else "", name, state, {})


def _header(path: Path) -> dict:
    """What a checkpoint, or the header of a sharded one, says of its run; {} when it can't be read."""
    if path.name == HEADER:
        return _read(path)
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return json.loads((file.metadata() or {})["training"])
    except (OSError, safetensors.SafetensorError, KeyError, ValueError):
        return {}


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _first_error(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").strip().splitlines() if path.exists() else []
    if not lines:
        return ""
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]  # of a traceback, its end says what went wrong


# ── What it shows ─────────────────────────────────────────────────────────────────────────────────────────────────────


def size_text(size: float) -> str:
    """Bytes for a person: 512 B, 3.4 kB, 120 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def cells(run: Found) -> tuple[str, ...]:
    """A run as the table shows it, under COLUMNS."""
    changed = max((path.stat().st_mtime for path in run.files), default=run.folder.stat().st_mtime)
    size = size_text(sum(path.stat().st_size for path in run.files))
    date = f"{datetime.fromtimestamp(changed):%Y-%m-%d %H:%M}"
    return run.lesson or "–", run.place or "–", run.seed or "–", run.arm, run.state, size, date


def show(runs: Path, terminal: bool) -> None:
    """Print a table on a terminal, and elsewhere plain lines with tabs between, for other programs to read."""
    found = find_runs(runs)
    if not found:
        print(f"nothing has run yet under {runs}; begin with `make lesson-1`")
        return
    if not terminal:
        for row in (COLUMNS, *map(cells, found)):
            print("\t".join(row))
        for command in commands(found):
            print(f"to go on:\t{command}")
        return
    console, table = Console(), Table(*COLUMNS)
    for run in found:
        *before, state, size, date = cells(run)
        style = STYLE[run.word]
        table.add_row(*map(escape, before), Text(state, style), size, date)
    console.print(table)
    if any(OLDER in run.state for run in found):
        console.print("older code: the code has changed since, so RESUME=1 would not use these but begin them afresh")
    going_on = list(commands(found))
    for command in going_on:
        console.print(f"to go on: [bold]{command}[/bold]", soft_wrap=True)
    if not going_on:
        console.print("nothing is left to go on with")


if __name__ == "__main__":
    show(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "runs", sys.stdout.isatty())
