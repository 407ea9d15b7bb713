"""Runs jobs: functions that train something, each in its own one-thread process, several at a time, cached.

Small models train faster in two processes of one thread than in one process of two. A job is a function and its
arguments; its result is cached under a fingerprint of both and of the source code.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shared.atomic import disk_errors, write_atomically
from shared.course.job_display import open_job_display
from shared.course.job_log import LOG, NOTE, JobLog
from shared.course.job_spec import ROOT, Job
from shared.course.job_start import INTERRUPTED
from shared.course.records import JOB, PROGRESS, RESULT, DamagedRecord, read_job, read_result
from shared.errors import CourseError
from shared.training.interruption import Interruption, TrainingInterrupted
from shared.training.lock import exclusive_lock
from shared.training.progress import REPORT_VARIABLE

SECONDS_TO_SAVE = 60.0  # the time a job has to reach its next step and save before it is killed


def run_jobs(jobs: Sequence[Job], workers: int = 2, resume: bool = False) -> dict[str, dict]:
    """Run all jobs, `workers` at a time, and return each one's measurements by its name.

    "_seconds" (over all sessions), "_peak_memory_mb" and "_device" are added to a job's own measurements.
    With `resume`, the result of a finished job with an equal fingerprint is read from its folder, and an interrupted
    one continues from its checkpoint. Otherwise, or when the fingerprint differs, the job's old folder is replaced.
    A job whose record is damaged is named on the terminal and runs again; the others keep their results. What a job
    prints as a warning is shown on the terminal, too.

    Raises ValueError for invalid jobs, CourseError when a job fails (the others are asked to stop and save first), and
    TrainingInterrupted after Ctrl-C or SIGTERM, when all have saved.
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
    logs = {job: JobLog(job.folder) for job in waiting}
    notes: set[str] = set()
    with Interruption() as interruption, open_job_display(jobs, finished=set(results)) as display:
        try:
            while (waiting or running) and not interruption.signal_name:
                while len(running) < workers and (ready := _next_job(waiting, results)):
                    waiting.remove(ready)
                    running[ready] = _start(ready)
                    display.started(ready)
                for job, process in list(running.items()):
                    ended = process.poll() is not None  # before its log is read to the end
                    for message in logs[job].new_messages():
                        if message not in notes:
                            display.show(job, message)
                        if message.startswith(NOTE):  # every arm prints the note on its data set
                            notes.add(message)
                    if ended:
                        del running[job]
                        results[job.name] = _read_result(job, process.returncode)
                        display.finished(job, results[job.name]["_seconds"])
                display.refresh()
                time.sleep(0.1)
        finally:
            if running:
                display.stopping()
                _stop(list(running.values()))
    if interruption.signal_name:
        raise TrainingInterrupted(
            f"stopped by {interruption.signal_name} with {len(results)} of {len(jobs)} jobs finished and the others "
            "saved; the same command with RESUME=1 continues from here"
        )
    return {job.name: results[job.name] for job in jobs}


def _next_job(waiting: Sequence[Job], results: Mapping[str, dict]) -> Job | None:
    """Return the first job that waits for no other, or None."""
    return next((job for job in waiting if results.keys() >= set(job.after)), None)


def _check(jobs: Sequence[Job], workers: int) -> None:
    if workers < 1:
        raise ValueError(f"workers is {workers}; it must be at least 1")
    for attribute in ("name", "folder"):
        values = [getattr(job, attribute) for job in jobs]
        if len(set(values)) < len(values):
            raise ValueError(f"two jobs have the same {attribute}; make them differ: {', '.join(map(str, values))}")
    for place, job in enumerate(jobs):
        if missing := sorted(set(job.after) - {earlier.name for earlier in jobs[:place]}):
            raise ValueError(f"job {job.name!r} waits for {', '.join(missing)}, which must come before it in the list")
        try:
            json.dumps(job.arguments)
        except TypeError as error:
            raise ValueError(f"the arguments of job {job.name!r} do not fit into JSON: {error}") from error


def _prepare(job: Job, resume: bool) -> dict | None:
    """Return the cached result, or prepare the folder to start or continue the job and return None."""
    folder = Path(job.folder)
    with disk_errors(folder):
        if folder.exists() and any(folder.iterdir()) and not (folder / JOB).exists():
            raise CourseError(f"{folder} has files but no {JOB}, so it is not replaced; use another folder")
    previous = _readable(read_job, job, resume) or {}
    fingerprint = job.fingerprint
    continues = resume and previous.get("fingerprint") == fingerprint
    if continues and (result := _readable(read_result, job, resume)):
        return result
    with disk_errors(folder):
        if not continues and folder.exists():
            with exclusive_lock(folder, patience=SECONDS_TO_SAVE):
                shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("error.txt", RESULT):
            (folder / name).unlink(missing_ok=True)
    spec = {
        "name": job.name,
        "function": job.function,
        "arguments": job.arguments,
        "fingerprint": fingerprint,
        "resume": continues,
        "seconds": previous.get("seconds", 0.0) if continues else 0.0,
    }
    write_atomically(folder / JOB, json.dumps(spec, indent=1).encode())
    return None


def _readable(read: Callable[[Path], dict | None], job: Job, resume: bool) -> dict | None:
    """Return a record of the job, or None when it is missing or damaged; a resumed run says which one is damaged."""
    try:
        return read(Path(job.folder))
    except DamagedRecord as error:
        if resume:
            print(f"{job.name}: {error}; this job runs again", file=sys.stderr, flush=True)
        return None


def _start(job: Job) -> subprocess.Popen:
    one_thread = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    folder = Path(job.folder).resolve()
    report = {REPORT_VARIABLE: str(folder / PROGRESS)}
    with disk_errors(job.folder), open(folder / LOG, "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "shared.course.job_start", str(folder), str(os.getpid())],
            cwd=ROOT,
            env=os.environ | dict.fromkeys(one_thread, "1") | report,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Ctrl-C reaches every process in the terminal's group; in a group of its own, a job gets it only from here.
            start_new_session=True,
        )


def _read_result(job: Job, status: int) -> dict:
    """Return the measurements of a finished job. Raises CourseError with the reason when it failed."""
    folder = Path(job.folder)
    if status == 0 and (result := read_result(folder)) is not None:
        return result
    error = folder / "error.txt"
    if error.exists() and error.stat().st_size:
        reason = error.read_text(encoding="utf-8").strip()
    elif shutil.disk_usage(folder).free < 1e6:
        reason = f"the disk that holds {folder} is full; free some space, and the same command with RESUME=1 continues"
    elif status == INTERRUPTED:
        reason = "it was stopped from outside, with its state saved; the same command with RESUME=1 continues"
    elif status == -signal.SIGKILL:
        reason = "its process was killed, which systems do when memory runs out"
    else:
        reason = f"its process ended with status {status}"
    last_lines = "\n".join(reason.splitlines()[-8:])
    raise CourseError(f"job {job.name} failed: {last_lines}\n(its complete output is in {folder / LOG})")


def _stop(processes: list[subprocess.Popen]) -> None:
    """Ask all processes to save and end; kill those that do not in time, or all after a second Ctrl-C."""
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
