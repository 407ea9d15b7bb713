"""One job: a function to call in a process of its own, and the fingerprint under which its result is kept."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
READERS = (("shared", "course"), ("shared", "plots"))


@dataclass(frozen=True)
class Job:
    """Call `function` ("package.module:name") with `arguments`, which JSON can hold, and `folder` and `resume`.

    It returns a dictionary of measurements that JSON can hold. All that it writes lies in `folder`.
    """

    name: str
    function: str
    arguments: dict[str, Any] = field(hash=False)
    folder: Path

    @property
    def fingerprint(self) -> str:
        """Equal for equal function, arguments and source code: the result would be the same again."""
        task = json.dumps([self.function, self.arguments, source_hash(self.function)], sort_keys=True)
        return hashlib.sha256(task.encode()).hexdigest()


def source_hash(function: str) -> str:
    """Hash the Python sources that a job's function can stand on: shared, data, and its own and earlier lessons.

    A lesson imports lower-numbered lessons only, so an edit to a later one changes nothing here. Tests don't count,
    nor does what only reads a job's results: claims, figures, and the course around them.
    """
    files = [file for top in ("shared", "data") for file in (ROOT / top).rglob("*.py")]
    if own := re.match(r"lessons\.lesson_(\d+)", function):
        for lesson in (ROOT / "lessons").glob("lesson_*"):
            number = re.match(r"lesson_(\d+)", lesson.name)
            if number and int(number[1]) <= int(own[1]):
                files += lesson.rglob("*.py")
    digest = hashlib.sha256()
    for file in sorted(files):
        place = file.relative_to(ROOT)
        reads_results = place.name in ("lesson.py", "arms.py", "claims.py", "figures.py") or place.parts[:2] in READERS
        if "tests" not in place.parts and "cache" not in place.parts and not reads_results:
            digest.update(f"{place.as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()
