"""Keep what an earlier grading gave when a later one gives other points."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from shared.atomic import write_atomically

GRADES, HISTORY = "grades.json", "history"


def keep_earlier_grades(folder: Path, totals: Mapping[str, float]) -> list[str]:
    """Copy grades.json into `history/` if its points differ from `totals`, and return a line per changed submission.

    totals  submission → points of the grading that will be written now

    A grades.json that cannot be read, as another program may leave it, is kept too and named in the one line.
    """
    path = folder / GRADES
    if not path.exists():
        return []
    content = path.read_bytes()
    try:
        record = json.loads(content)
        earlier = {name: float(each["points"]) for name, each in record["submissions"].items()}
        date = str(record["graded"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"{path} could not be read; it is now {_copy(folder, 'unreadable', content)}"]
    changed = [
        f"{name}: {_points(earlier.get(name))} → {_points(totals.get(name))}"
        for name in sorted({*earlier, *totals})
        if earlier.get(name) != totals.get(name)
    ]
    if changed:
        _copy(folder, re.sub(r"[^0-9T]", "-", date.removesuffix("+00:00")), content)
    return changed


def _points(value: float | None) -> str:
    return "no row" if value is None else f"{value:g} points"


def _copy(folder: Path, name: str, content: bytes) -> Path:
    """Write the content under a name that is still free, and return the file's path."""
    path, count = folder / HISTORY / f"{name}.json", 2
    while path.exists() and path.read_bytes() != content:
        path, count = folder / HISTORY / f"{name} ({count}).json", count + 1
    write_atomically(path, content)
    return path
