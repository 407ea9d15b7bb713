"""One job in its own process: `python -m shared.course.job_process FOLDER` (started by jobs.py).

FOLDER/job.json says which function to call with which arguments. The function's measurements go to
FOLDER/result.json, or the reason why there are none to FOLDER/error.txt.
"""

import contextlib
import importlib
import inspect
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import torch

from shared.atomic import write_atomically
from shared.course.context import RunContext
from shared.course.jobs import INTERRUPTED, SECONDS_TO_SAVE
from shared.errors import CourseError
from shared.training.interruption import TrainingInterrupted
from shared.training.lock import exclusive_lock
from shared.training.memory import peak_process_memory


def main(folder: Path) -> int:
    """Do the job that `folder` describes and return the status to exit with."""
    torch.set_num_threads(1)
    threading.Thread(target=_stop_with_parent, args=(os.getppid(),), daemon=True).start()
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    started = time.perf_counter()
    try:
        function = imported(job["function"])
        # One whose parent was killed may still be saving in this folder.
        with exclusive_lock(folder, patience=SECONDS_TO_SAVE):
            result = _call(function, job, folder)
        record = _checked(job["function"], result) | _costs(job, started)
        write_atomically(folder / "result.json", json.dumps(record, indent=1).encode())
        return 0
    except (TrainingInterrupted, KeyboardInterrupt):
        # The next sitting adds its own time to what this one has spent.
        job["seconds"] += time.perf_counter() - started
        write_atomically(folder / "job.json", json.dumps(job, indent=1).encode())
        return INTERRUPTED
    except Exception as error:
        traceback.print_exc()
        reason = str(error) if isinstance(error, CourseError) else traceback.format_exc()
        with contextlib.suppress(OSError):  # on a full disk not even the reason fits; the parent will notice that
            (folder / "error.txt").write_text(reason.strip() + "\n", encoding="utf-8")
        return 1


def _call(function, job: dict, folder: Path):
    """Call an arm with its context and settings; functions without a `context` parameter get everything by name."""
    arguments = dict(job["arguments"])
    if "context" not in inspect.signature(function).parameters:
        return function(**arguments, folder=folder, resume=job["resume"])
    named = {name: arguments.pop(name) for name in ("seed", "data", "device")}
    return function(RunContext(**named, folder=folder, resume=job["resume"]), **arguments)


def imported(function: str):
    """Return the function called "package.module:name". Raises CourseError when there is none."""
    module_name, _, name = function.partition(":")
    try:
        return getattr(importlib.import_module(module_name), name)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise CourseError(
            f"cannot find the job's function {function!r} ({error}); write package.module:name"
        ) from error


def _checked(function: str, result: object) -> dict:
    if not isinstance(result, dict):
        raise CourseError(f"{function} must return a dictionary of measurements, not {result!r:.200}")
    try:
        # There and back, so that a fresh result is exactly what a cached one will be.
        return json.loads(json.dumps(result))
    except TypeError as error:
        raise CourseError(f"{function} must return what JSON can hold: {error}") from error


def _costs(job: dict, started: float) -> dict:
    """Seconds over all sittings, peak memory in MB, and the device by name; "_" sets them apart from measurements."""
    costs = {
        "_seconds": round(job["seconds"] + time.perf_counter() - started, 2),
        "_peak_memory_mb": round(peak_process_memory() / 1e6, 1),
        "_device": job["arguments"].get("device", "cpu"),
    }
    if torch.cuda.is_initialized():
        costs["_device"] = torch.cuda.get_device_name()
        costs["_peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 1e6, 1)
    return costs


def _stop_with_parent(parent: int) -> None:
    """Ask this process to stop when its parent is gone: two runs must never write to one folder."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
