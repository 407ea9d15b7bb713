"""Find a lesson's prerequisites by parsing its code: earlier lessons, and packages of `shared` and `data`.

Nothing is imported, so that the site can be built without PyTorch.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# A module, an arm's "module:function", or a checkpoint: lessons.lesson_01_vit.model, lesson_00_decoder.
LESSON = re.compile(r"(?:lessons\.)?lesson_(\d\d)_[\w.:/]+")
PACKAGE = re.compile(r"(shared|data)\.(\w+)")


@dataclass(frozen=True)
class Prerequisites:
    """The parts of the course that one lesson uses."""

    lessons: tuple[int, ...]
    """Numbers of earlier lessons, in order."""
    packages: tuple[str, ...]
    """Folders such as shared/attention and data/toybox, in order."""


def names_in(path: Path) -> Iterator[str]:
    """Yield the full names of a file's imports, and its strings, which may name a module or a checkpoint."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def prerequisites(folder: Path, number: int) -> Prerequisites:
    """Return the prerequisites of lesson `number` in `folder`; tests and `shared.course` do not count."""
    root = folder.parents[1]
    lessons: set[int] = set()
    packages: set[str] = set()
    for path in sorted(folder.rglob("*.py")):
        if "tests" in path.relative_to(folder).parts:
            continue
        for name in names_in(path):
            if (lesson := LESSON.fullmatch(name)) and int(lesson[1]) < number:
                lessons.add(int(lesson[1]))
            elif (match := PACKAGE.match(name)) and match[2] != "course" and (root / match[1] / match[2]).is_dir():
                packages.add(f"{match[1]}/{match[2]}")
    return Prerequisites(tuple(sorted(lessons)), tuple(sorted(packages)))
