"""Jobs: functions that train something, each in its own one-thread process, a few side by side, cached.

Small models train faster in two processes of one thread than in one process of two. A job is named by
a function and its arguments, and what it measured is kept under a fingerprint of both and of the source code.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from shared.atomic import disk_errors, write_atomically
from shared.course.job_display import open_job_display
from shared.course.job_spec import ROOT, Job
from shared.errors import CourseError
from shared.training.interruption import Interruption, TrainingInterrupted
from shared.training.lock import exclusive_lock
from shared.training.progress import REPORT_VARIABLE

INTERRUPTED = 130  # the status of a job that was asked to stop and has saved
SECONDS_TO_SAVE = 60.0  # that a job is given to reach its next step and save, before it is killed


def run_jobs(jobs: Sequence[Job], workers: int = 2, resume: bool = False) -> dict[str, dict]:
    """Do all jobs, `workers` at a time, and return by name what each measured.

    To a job's own measurements are added "_seconds" (over all sittings), "_peak_memory_mb" and "_device".
    With `resume`, a finished job of equal fingerprint is taken from its folder and one that was cut goes on from its
    checkpoint; otherwise, and when the fingerprint differs, a job's old folder is replaced.

    Raises CourseError when a job fails (the others are asked to stop and save first), and TrainingInterrupted
    after Ctrl-C or SIGTERM, when all have saved.
    """
    _check(jobs, workers)
    results: dict[str, dict] = {}
    waiting: list[Job] = []
    for job in jobs:
        cached = _prepare(job, resume)
        if cached is None:
            waiting.append(job)
        else:
            results[job.name] = cached
    running: dict[Job, subprocess.Popen] = {}
    with Interruption() as interruption, open_job_display(jobs, finished=set(results)) as display:
        try:
            while (waiting or running) and not interruption.wanted:
                while waiting and len(running) < workers:
                    job = waiting.pop(0)
                    running[job] = _start(job)
                    display.started(job)
                for job, process in list(running.items()):
                    if process.poll() is not None:
                        del running[job]
                        results[job.name] = _collect(job, process.returncode)
                        display.finished(job, results[job.name]["_seconds"])
                display.refresh()
                time.sleep(0.1)
        finally:
            if running:
                display.stopping()
                _stop(list(running.values()))
    if interruption.wanted:
        raise TrainingInterrupted(
            f"stopped by {interruption.wanted} with {len(results)} of {len(jobs)} jobs finished and the others saved; "
            "the same command with RESUME=1 goes on from here"
        )
    return {job.name: results[job.name] for job in jobs}


def _check(jobs: Sequence[Job], workers: int) -> None:
    if workers < 1:
        raise ValueError(f"workers is {workers}; somebody has to do the work, so at least 1")
    for what in ("name", "folder"):
        values = [getattr(job, what) for job in jobs]
        if len(set(values)) < len(values):
            raise ValueError(f"two jobs have the same {what}; each needs its own: {', '.join(map(str, values))}")
    for job in jobs:
        try:
            json.dumps(job.arguments)
        except TypeError as error:
            raise ValueError(f"the arguments of job {job.name!r} are not what JSON can hold: {error}") from error


def _prepare(job: Job, resume: bool) -> dict | None:
    """Return the cached result, or make the folder ready for a start or a continuation and return None."""
    folder, ticket = Path(job.folder), Path(job.folder) / "job.json"
    with disk_errors(folder):
        if folder.exists() and any(folder.iterdir()) and not ticket.exists():
            raise CourseError(f"{folder} holds something, but no job.json, so it is not replaced; name another folder")
        before = json.loads(ticket.read_text(encoding="utf-8")) if ticket.exists() else {}
    fingerprint = job.fingerprint
    goes_on = resume and before.get("fingerprint") == fingerprint
    if goes_on and (folder / "result.json").exists():
        return json.loads((folder / "result.json").read_text(encoding="utf-8"))
    with disk_errors(folder):
        if not goes_on and folder.exists():
            with exclusive_lock(folder, patience=SECONDS_TO_SAVE):
                shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.txt").unlink(missing_ok=True)
    order = {
        "name": job.name,
        "function": job.function,
        "arguments": job.arguments,
        "fingerprint": fingerprint,
        "resume": goes_on,
        "seconds": before.get("seconds", 0.0) if goes_on else 0.0,
    }
    write_atomically(ticket, json.dumps(order, indent=1).encode())
    return None


def _start(job: Job) -> subprocess.Popen:
    one_thread = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    environment = os.environ | dict.fromkeys(one_thread, "1") | {REPORT_VARIABLE: str(_report(job))}
    with disk_errors(job.folder), open(Path(job.folder) / "log.txt", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "shared.course.job_process", str(Path(job.folder).resolve())],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # A Ctrl-C reaches every process of the terminal's group; out of the group, jobs hear of it from us alone.
            start_new_session=True,
        )


def _report(job: Job) -> Path:
    return Path(job.folder).resolve() / "progress.json"


def _collect(job: Job, status: int) -> dict:
    """Return what a finished job measured. Raises CourseError with the reason when it failed."""
    folder = Path(job.folder)
    if status == 0:
        return json.loads((folder / "result.json").read_text(encoding="utf-8"))
    error = folder / "error.txt"
    if error.exists() and error.stat().st_size:
        reason = error.read_text(encoding="utf-8").strip()
    elif shutil.disk_usage(folder).free < 1e6:
        reason = f"the disk that holds {folder} is full; make room, and the same command with RESUME=1 goes on"
    elif status == INTERRUPTED:
        reason = "it was stopped from outside, with its state saved; the same command with RESUME=1 goes on"
    elif status == -signal.SIGKILL:
        reason = "its process was killed, as systems do when memory runs out"
    else:
        reason = f"its process ended with status {status}"
    last_lines = "\n".join(reason.splitlines()[-8:])
    raise CourseError(f"job {job.name} failed: {last_lines}\n(all it printed is in {folder / 'log.txt'})")


def _stop(processes: list[subprocess.Popen]) -> None:
    """Ask all to save and leave; kill those that haven't when the time is over, or when asked again."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + SECONDS_TO_SAVE
    try:
        for process in processes:
            process.wait(max(0.0, deadline - time.monotonic()))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        pass
    finally:
        for process in processes:
            process.kill()
            process.wait()
