"""Jobs seen from outside: a bar per job on a terminal, plain lines elsewhere."""

import contextlib
import json
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from shared.course.job_spec import Job
from shared.training.progress import bar_columns, clock


@contextlib.contextmanager
def open_job_display(jobs: Sequence[Job], finished: Collection[str]) -> "Iterator[JobLines]":
    """Show `jobs`, of which those named in `finished` came from the cache."""
    if not sys.stderr.isatty():
        yield JobLines(jobs, finished)
        return
    columns = bar_columns([job.name for job in jobs])
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as progress:
        yield JobBars(progress, jobs, finished)


def read_report(job: Job) -> dict | None:
    """Return what the training in a job's process last reported, or None when it hasn't yet."""
    try:
        return json.loads((Path(job.folder) / "progress.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None


def report_text(report: dict | None, seconds: float) -> str:
    """Say where a job is: "120/400 · loss 1.2345 · 0:05 left · 52 steps/s"; of one that trains nothing, its time so far."""
    if report is None:
        return clock(seconds)
    parts = [report["label"]] if report["label"] else []
    parts.append(f"{report['step']}/{report['steps']}")
    if report["loss"] is not None:
        parts.append(f"loss {report['loss']:.4f}")
    return " · ".join([*parts, report["pace"]])


class JobLines:
    """A line when a job starts and when it ends, and one on all that run every 15 seconds."""

    def __init__(self, jobs: Sequence[Job], finished: Collection[str]):
        self.start_of: dict[Job, float] = {}
        self.due = time.monotonic() + 15.0
        for job in jobs:
            if job.name in finished:
                self._print(job, "taken from the cache")

    def started(self, job: Job) -> None:
        self.start_of[job] = time.monotonic()
        self._print(job, "started")

    def finished(self, job: Job, seconds: float) -> None:
        del self.start_of[job]
        self._print(job, f"done in {clock(seconds)}")

    def refresh(self) -> None:
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + 15.0
            for job, start in self.start_of.items():
                self._print(job, report_text(read_report(job), time.monotonic() - start))

    def stopping(self) -> None:
        print("waiting for the running jobs to save", file=sys.stderr, flush=True)

    def _print(self, job: Job, text: str) -> None:
        print(f"{job.name}: {text}", file=sys.stderr, flush=True)


class JobBars:
    """A live bar per job, in the order given."""

    def __init__(self, progress: Progress, jobs: Sequence[Job], finished: Collection[str]):
        self.progress = progress
        self.start_of: dict[Job, float] = {}
        self.task_of = {}
        for job in jobs:
            done = job.name in finished
            state = "from the cache" if done else "waiting"
            self.task_of[job.name] = progress.add_task(job.name, total=1, completed=int(done), state=state)

    def started(self, job: Job) -> None:
        self.start_of[job] = time.monotonic()

    def finished(self, job: Job, seconds: float) -> None:
        del self.start_of[job]
        self.progress.update(self.task_of[job.name], total=1, completed=1, state=f"done in {clock(seconds)}")

    def refresh(self) -> None:
        for job, start in self.start_of.items():
            report = read_report(job)
            # A job without a training loop has no total: its bar pulses.
            step, steps = (report["step"], report["steps"]) if report else (0, None)
            text = report_text(report, time.monotonic() - start)
            self.progress.update(self.task_of[job.name], total=steps, completed=step, state=text)

    def stopping(self) -> None:
        self.progress.console.print("waiting for the running jobs to save")
