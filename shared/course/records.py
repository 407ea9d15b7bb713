"""Read the JSON records of a run's folder: the job, its result, its progress, and the claims.

A full disk, a cut copy or another program can leave a record empty, cut or of another shape. Reading such a file
raises DamagedRecord, which names the file and the fault; the caller decides what is done again.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.errors import CourseError

JOB, RESULT, PROGRESS = "job.json", "result.json", "progress.json"
"""The names of a job's records in its folder."""

NUMBER = (int, float)
JOB_FIELDS = {
    "name": str,
    "function": str,
    "arguments": dict,
    "fingerprint": str,
    "resume": bool,
    "seconds": NUMBER,
}
RESULT_FIELDS = {"_seconds": NUMBER, "_peak_memory_mb": NUMBER, "_device": str}
PROGRESS_FIELDS = {"label": str, "step": int, "steps": int, "loss": (*NUMBER, type(None)), "pace": str}


class DamagedRecord(CourseError):
    """A record is empty, cut or of another shape; `fault` is the message with the file's name instead of its path."""

    def __init__(self, path: Path, fault: str):
        super().__init__(f"{path} {fault}")
        self.fault = f"{path.name} {fault}"


def read_job(folder: Path) -> dict[str, Any] | None:
    """Return the record of the job in `folder`, None when there is none. Raises DamagedRecord."""
    return _read_fields(folder / JOB, JOB_FIELDS)


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return the result of the job in `folder`, None when it has not finished. Raises DamagedRecord."""
    return _read_fields(folder / RESULT, RESULT_FIELDS)


def read_progress(folder: Path) -> dict[str, Any] | None:
    """Return what the training in `folder` last reported, None before its first report. Raises DamagedRecord."""
    return _read_fields(folder / PROGRESS, PROGRESS_FIELDS)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. Raises FileNotFoundError when it is missing, DamagedRecord when damaged."""
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedRecord(path, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DamagedRecord(path, "is damaged: it is not text") from error
    except (ValueError, RecursionError) as error:
        fault = "it is not JSON" if text.strip() else "it is empty"
        raise DamagedRecord(path, f"is damaged: {fault}") from error


def _read_fields(path: Path, fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the object in a JSON file that has all `fields` (name → type); None when the file is missing."""
    try:
        content = read_json(path)
    except FileNotFoundError:
        return None
    if not isinstance(content, dict):
        raise DamagedRecord(path, f"is damaged: it holds a {type(content).__name__} where an object is expected")
    for name, kind in fields.items():
        value = content.get(name)
        wrong_bool = isinstance(value, bool) and kind is not bool
        if name not in content or wrong_bool or not isinstance(value, kind):
            fault = f"{name!r} is {value!r:.40}" if name in content else f"it has no {name!r}"
            raise DamagedRecord(path, f"is damaged: {fault}")
    return content
