"""Displays the progress of jobs: a bar per job on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import Progress, TaskID

from shared.course.job_spec import Job
from shared.course.records import DamagedRecord, read_progress
from shared.training.progress import bar_columns, format_duration

LINE_INTERVAL = 15.0  # seconds between two lines about the running jobs


class JobDisplay(Protocol):
    """Show the progress of jobs."""

    def started(self, job: Job) -> None: ...

    def finished(self, job: Job, seconds: float) -> None: ...

    def refresh(self) -> None: ...

    def show(self, job: Job, text: str) -> None: ...

    def stopping(self) -> None: ...


@contextlib.contextmanager
def open_job_display(jobs: Sequence[Job], finished: Collection[str]) -> Iterator[JobDisplay]:
    """Show `jobs`; those named in `finished` came from the cache."""
    if not sys.stderr.isatty():
        yield JobLines(jobs, finished)
        return
    columns = bar_columns([job.name for job in jobs])
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as progress:
        yield JobBars(progress, jobs, finished)


def read_report(job: Job) -> dict | None:
    """Return what the training in a job's process last reported, or None if there is no readable report."""
    try:
        return read_progress(Path(job.folder))
    except DamagedRecord:
        return None


def format_report(report: dict | None, seconds: float) -> str:
    """Format a job's progress as "120/400 · loss 1.2345 · 0:05 left · 52 steps/s"; without a report, its duration."""
    if report is None:
        return format_duration(seconds)
    parts = [report["label"]] if report["label"] else []
    parts.append(f"{report['step']}/{report['steps']}")
    if report["loss"] is not None:
        parts.append(f"loss {report['loss']:.4f}")
    return " · ".join([*parts, report["pace"]])


class JobLines:
    """Print a line when a job starts and ends, and regularly one for each job that runs."""

    def __init__(self, jobs: Sequence[Job], finished: Collection[str]):
        self.start_times: dict[Job, float] = {}
        self.due = time.monotonic() + LINE_INTERVAL
        for job in jobs:
            if job.name in finished:
                self._print(job, "taken from the cache")

    def started(self, job: Job) -> None:
        self.start_times[job] = time.monotonic()
        self._print(job, "started")

    def finished(self, job: Job, seconds: float) -> None:
        del self.start_times[job]
        self._print(job, f"done in {format_duration(seconds)}")

    def refresh(self) -> None:
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + LINE_INTERVAL
            for job, start in self.start_times.items():
                self._print(job, format_report(read_report(job), time.monotonic() - start))

    def show(self, job: Job, text: str) -> None:
        self._print(job, text)

    def stopping(self) -> None:
        print("waiting for the running jobs to save", file=sys.stderr, flush=True)

    def _print(self, job: Job, text: str) -> None:
        print(f"{job.name}: {text}", file=sys.stderr, flush=True)


class JobBars:
    """Show a live bar per job, in the order of `jobs`."""

    def __init__(self, progress: Progress, jobs: Sequence[Job], finished: Collection[str]):
        self.progress = progress
        self.start_times: dict[Job, float] = {}
        self.tasks: dict[str, TaskID] = {}
        for job in jobs:
            done = job.name in finished
            state = "from the cache" if done else "waiting"
            self.tasks[job.name] = progress.add_task(job.name, total=1, completed=int(done), state=state)

    def started(self, job: Job) -> None:
        self.start_times[job] = time.monotonic()

    def finished(self, job: Job, seconds: float) -> None:
        del self.start_times[job]
        state = f"done in {format_duration(seconds)}"
        self.progress.update(self.tasks[job.name], total=1, completed=1, state=state)

    def refresh(self) -> None:
        for job, start in self.start_times.items():
            report = read_report(job)
            # Without a training loop there is no total, and the bar pulses.
            step, steps = (report["step"], report["steps"]) if report else (0, None)
            text = format_report(report, time.monotonic() - start)
            self.progress.update(self.tasks[job.name], total=steps, completed=step, state=text)

    def show(self, job: Job, text: str) -> None:
        self.progress.console.print(f"{job.name}: {text}", markup=False, highlight=False)

    def stopping(self) -> None:
        self.progress.console.print("waiting for the running jobs to save")
