"""One job: a function to call in its own process, and the fingerprint under which its result is cached."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.folders import folder_fingerprint

ROOT = Path(__file__).resolve().parents[2]

# Sources that only read results, so that editing them makes no result stale.
READER_FOLDERS = (("shared", "course"), ("shared", "plots"))
READER_FILES = ("lesson.py", "arms.py", "claims.py", "figures.py")


@dataclass(frozen=True)
class Job:
    """Describe a call of `function` ("package.module:name"), which measures something, in its own process.

    function   is called as `function(RunContext(seed, data, device, folder, resume), **settings)`
    arguments  seed, data, device and the settings, as JSON can hold them
    folder     everything that the job writes is in here
    after      names of jobs whose results this one reads: it starts when they have finished

    The function returns a dictionary of measurements that JSON can hold.
    """

    name: str
    function: str
    arguments: dict[str, Any] = field(hash=False)
    folder: Path
    after: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Return a hash of function, arguments, source code and the user's data: jobs with equal ones are equal."""
        values = [self.function, self.arguments, source_hash(self.function)]
        data = self.arguments.get("data")
        if isinstance(data, str) and data.startswith("folder:"):
            values.append(folder_fingerprint(ROOT / data.removeprefix("folder:")))  # jobs run in the root
        content = json.dumps(values, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def source_hash(function: str) -> str:
    """Return a hash of the Python sources that a job's function can import, directly or not.

    A lesson imports shared, data, itself and lower-numbered lessons; an app imports shared, data, apps and all lessons.
    Tests are left out, and so is what only reads results: claims, figures, and the course around them. The module of
    the function itself always counts, whatever its name.
    """
    files = [file for top in ("shared", "data") for file in (ROOT / top).rglob("*.py")]
    files += [file for folder in _own_folders(function) for file in folder.rglob("*.py")]
    own_module = ROOT / (function.partition(":")[0].replace(".", "/") + ".py")
    digest = hashlib.sha256()
    for file in sorted(files):
        parts = file.relative_to(ROOT).parts
        is_reader = file.name in READER_FILES or parts[:2] in READER_FOLDERS
        is_source = "tests" not in parts and "cache" not in parts and not is_reader
        if is_source or file == own_module:
            digest.update(f"{'/'.join(parts)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _own_folders(function: str) -> list[Path]:
    """Return the folders of lessons and apps that the function's module may import."""
    lessons = sorted((ROOT / "lessons").glob("lesson_*"))
    if function.startswith("apps."):
        return [*lessons, ROOT / "apps"]
    lesson_number = re.match(r"lessons\.lesson_(\d+)", function)
    if lesson_number is None:
        return []
    numbers = {folder: re.match(r"lesson_(\d+)", folder.name) for folder in lessons}
    return [folder for folder, number in numbers.items() if number and int(number[1]) <= int(lesson_number[1])]
