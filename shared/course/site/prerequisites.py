"""What a lesson stands on, read from its code: earlier lessons, and the shared rooms that it walks into.

Nothing is imported for it, so that the site can be built where PyTorch is not installed.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# A module, an arm's "module:function", or a checkpoint: lessons.lesson_01_vit.model, lesson_00_decoder.
LESSON = re.compile(r"(?:lessons\.)?lesson_(\d\d)_[\w.:/]+")
ROOM = re.compile(r"(shared|data)\.(\w+)")


@dataclass(frozen=True)
class Prerequisites:
    """What one lesson uses of the rest of the course."""

    lessons: tuple[int, ...]
    """Numbers of earlier lessons, in order."""
    rooms: tuple[str, ...]
    """Folders such as shared/attention and data/toybox, in order."""


def names_in(path: Path) -> Iterator[str]:
    """Full names of all that a Python file imports, and its strings that could name a module or a checkpoint."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def prerequisites(folder: Path, number: int) -> Prerequisites:
    """What the code in `folder`, that of lesson `number`, stands on; tests don't count, nor does the course's machinery."""
    root = folder.parents[1]
    lessons, rooms = set(), set()
    for path in sorted(folder.rglob("*.py")):
        if "tests" in path.relative_to(folder).parts:
            continue
        for name in names_in(path):
            if (lesson := LESSON.fullmatch(name)) and int(lesson[1]) < number:
                lessons.add(int(lesson[1]))
            elif (room := ROOM.match(name)) and room[2] != "course" and (root / room[1] / room[2]).is_dir():
                rooms.add(f"{room[1]}/{room[2]}")
    return Prerequisites(tuple(sorted(lessons)), tuple(sorted(rooms)))
