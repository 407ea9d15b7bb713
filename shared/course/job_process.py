"""Run one job in its own process, which job_start.py has started.

The folder's job.json names the function and its arguments. The function's measurements are written to result.json, or
the reason of its failure to error.txt.
"""

import contextlib
import importlib
import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from shared.atomic import write_atomically
from shared.course.context import RunContext
from shared.course.job_start import INTERRUPTED
from shared.course.jobs import SECONDS_TO_SAVE
from shared.course.records import JOB, RESULT, read_job
from shared.errors import CourseError
from shared.training.interruption import TrainingInterrupted
from shared.training.lock import exclusive_lock
from shared.training.memory import peak_process_memory


def run_job(folder: Path) -> int:
    """Run the job that `folder` describes and return the exit status."""
    torch.set_num_threads(1)
    spec = read_job(folder)
    if spec is None:
        raise CourseError(f"{folder / JOB} does not exist, so there is no job to run")
    started = time.perf_counter()
    try:
        function = import_function(spec["function"])
        # A job whose parent was killed may still be saving in this folder.
        with exclusive_lock(folder, patience=SECONDS_TO_SAVE):
            result = _call(function, spec, folder)
        record = _check_result(spec["function"], result) | _costs(spec, started)
        write_atomically(folder / RESULT, json.dumps(record, indent=1).encode())
        return 0
    except (TrainingInterrupted, KeyboardInterrupt):
        # The next session adds its own time to this.
        spec["seconds"] += time.perf_counter() - started
        write_atomically(folder / JOB, json.dumps(spec, indent=1).encode())
        return INTERRUPTED
    except Exception as error:
        traceback.print_exc()
        reason = str(error) if isinstance(error, CourseError) else traceback.format_exc()
        with contextlib.suppress(OSError):  # a full disk cannot hold the reason either; the parent checks for that
            (folder / "error.txt").write_text(reason.strip() + "\n", encoding="utf-8")
        return 1


def _call(function: Callable[..., Any], spec: dict, folder: Path) -> Any:
    """Call the function with its context and its own settings."""
    settings = dict(spec["arguments"])
    run = {name: settings.pop(name) for name in ("seed", "data", "device")}
    return function(RunContext(**run, folder=folder, resume=spec["resume"]), **settings)


def import_function(name: str) -> Callable[..., Any]:
    """Return the function called "package.module:name". Raises CourseError when it does not exist."""
    module_name, _, function_name = name.partition(":")
    try:
        return getattr(importlib.import_module(module_name), function_name)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise CourseError(f"cannot find the job's function {name!r} ({error}); write package.module:name") from error


def _check_result(function: str, result: object) -> dict:
    if not isinstance(result, dict):
        raise CourseError(f"{function} must return a dictionary of measurements, not {result!r:.200}")
    try:
        # To JSON and back, so that a new result equals what a cached one will be.
        return json.loads(json.dumps(result))
    except TypeError as error:
        raise CourseError(f"{function} must return values that JSON can hold: {error}") from error


def _costs(spec: dict, started: float) -> dict:
    """Return seconds over all sessions, peak memory in MB and the device; "_" separates them from measurements."""
    costs = {
        "_seconds": round(spec["seconds"] + time.perf_counter() - started, 2),
        "_peak_memory_mb": round(peak_process_memory() / 1e6, 1),
        "_device": spec["arguments"].get("device", "cpu"),
    }
    if torch.cuda.is_initialized():
        costs["_device"] = torch.cuda.get_device_name()
        costs["_peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 1e6, 1)
    return costs
