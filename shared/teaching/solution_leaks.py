"""Search the files of a student's bundle for the code of solutions, whatever their format."""

import ast
import contextlib
import json
from collections.abc import Mapping
from functools import lru_cache

MIN_LENGTH = 40  # characters of code without spaces; shorter code cannot be told from any other line


def fingerprints(code: str) -> list[str]:
    """Return a solution without spaces, comments and layout: as it is written, and as Python unparses it."""
    texts = [_without_layout(code)]
    with contextlib.suppress(SyntaxError):
        texts.append(_without_layout(ast.unparse(ast.parse(_dedent(code)))))
    return [text for text in dict.fromkeys(texts) if len(text) >= MIN_LENGTH]


def find_leaks(files: Mapping[str, bytes], solutions: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return every (exercise, path) where a file contains the solution of an exercise."""
    patterns = {exercise: fingerprints(code) for exercise, code in solutions.items()}
    leaks = []
    for path, content in files.items():
        texts = _texts_without_layout(path.rpartition(".")[2], content)
        for exercise, codes in patterns.items():
            if any(code in text for code in codes for text in texts):
                leaks.append((exercise, path))
    return leaks


@lru_cache(4096)
def _texts_without_layout(suffix: str, content: bytes) -> list[str]:
    return list(map(_without_layout, _texts(suffix, content)))


def _texts(suffix: str, content: bytes) -> list[str]:
    """Return all forms of a file's text that could contain a solution."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return [content.decode("latin-1")]
    if suffix == "ipynb":
        cells = json.loads(text)["cells"]
        return ["".join(cell["source"]) for cell in cells] + [json.dumps(cell.get("outputs", [])) for cell in cells]
    if suffix == "py":
        return [text, ast.unparse(ast.parse(text))]
    return [text]


def _dedent(code: str) -> str:
    """Remove the common indentation; comment lines, which may be indented otherwise, become empty."""
    lines = code.splitlines()
    edge = min(len(line) - len(line.lstrip()) for line in lines if line.strip() and not line.strip().startswith("#"))
    return "\n".join(line[edge:] if not line.strip().startswith("#") else "" for line in lines)


def _without_layout(text: str) -> str:
    lines = (line for line in text.splitlines() if not line.strip().startswith("#"))
    return "".join("".join(line.split()) for line in lines).replace("'", '"')
