"""Look for solutions where none may be: in every text that goes to a student, whatever its format."""

import ast
import contextlib
import json
from collections.abc import Mapping
from functools import lru_cache

SHORTEST = 40  # letters of code; what is shorter can't be told from any other line


def fingerprints(code: str) -> list[str]:
    """What a solution looks like without spaces, comments and layout: its lines as they stand, and as Python sees them."""
    found = [_squeezed(code)]
    with contextlib.suppress(SyntaxError):
        found.append(_squeezed(ast.unparse(ast.parse(_dedented(code)))))
    return [each for each in dict.fromkeys(found) if len(each) >= SHORTEST]


def leaks(files: Mapping[str, bytes], solutions: Mapping[str, str]) -> list[tuple[str, str]]:
    """Every (exercise, path) where a file holds the solution of an exercise."""
    wanted = {exercise: fingerprints(code) for exercise, code in solutions.items()}
    found = []
    for path, content in files.items():
        texts = _squeezed_texts(path.rpartition(".")[2], content)
        for exercise, shapes in wanted.items():
            if any(shape in text for shape in shapes for text in texts):
                found.append((exercise, path))
    return found


@lru_cache(4096)
def _squeezed_texts(kind: str, content: bytes) -> list[str]:
    return list(map(_squeezed, _texts(kind, content)))


def _texts(kind: str, content: bytes) -> list[str]:
    """The readings of a file that a solution could be seen in."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return [content.decode("latin-1")]
    if kind == "ipynb":
        cells = json.loads(text)["cells"]
        return ["".join(cell["source"]) for cell in cells] + [json.dumps(cell.get("outputs", [])) for cell in cells]
    if kind == "py":
        return [text, ast.unparse(ast.parse(text))]
    return [text]


def _dedented(code: str) -> str:
    lines = code.splitlines()
    edge = min(len(line) - len(line.lstrip()) for line in lines if line.strip() and not line.strip().startswith("#"))
    return "\n".join(line[edge:] if not line.strip().startswith("#") else "" for line in lines)


def _squeezed(text: str) -> str:
    lines = (line for line in text.splitlines() if not line.strip().startswith("#"))
    return "".join("".join(line.split()) for line in lines).replace("'", '"')
