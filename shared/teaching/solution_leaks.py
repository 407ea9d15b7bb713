"""Search the files of a student's bundle for the code of solutions, whatever their format.

In every file, a copy is the solution's text without spaces, comments and layout. In pages and notebooks, where code is
shown in pieces, a copy is also a block of code that has the solution's lines under other names, or most of its tokens.
In Python files, tests among them, one large expression of the solution is a copy, whatever its variables' names. Copies
that are known and allowed are listed in `repeated_code.toml`, with reasons.
"""

import ast
import contextlib
import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from shared.teaching.logical_lines import LogicalLine, contains, dedent, logical_lines
from shared.teaching.syntax_trees import large_expressions

REPEATED_CODE = Path(__file__).with_name("repeated_code.toml")

MIN_LENGTH = 40  # characters of code without spaces; shorter code cannot be told from any other line
MIN_TOKENS = 10  # the same limit for blocks of code on pages
RUN = 4
"""Number of neighboring tokens that are compared as one."""
MOST = 0.45
"""Fraction of a solution's runs of tokens from which on a block is a copy of it."""
FENCED = re.compile(r"^[ \t]*```\w*\n(.*?)^[ \t]*```", re.M | re.S)
TRAILING_COMMENT = re.compile(r"\s{2,}#.*$")


def fingerprints(code: str) -> list[str]:
    """Return a solution without spaces, comments and layout: as it is written, and as Python unparses it."""
    texts = [_without_layout(code)]
    with contextlib.suppress(SyntaxError):
        texts.append(_without_layout(ast.unparse(ast.parse(dedent(code)))))
    return [text for text in dict.fromkeys(texts) if len(text) >= MIN_LENGTH]


@lru_cache
def allowed_copies() -> frozenset[tuple[str, str]]:
    """Return every (exercise, path) where a large expression of a solution may occur."""
    entries = tomllib.loads(REPEATED_CODE.read_text(encoding="utf-8"))["copy"]
    return frozenset((entry["exercise"], entry["path"]) for entry in entries if entry["reason"])


def find_leaks(
    files: Mapping[str, bytes], solutions: Mapping[str, str], allowed: Collection[tuple[str, str]] | None = None
) -> list[tuple[str, str]]:
    """Return every (exercise, path) where a file contains the solution of an exercise.

    allowed  where a large expression may be repeated: `allowed_copies()` when None
    """
    allowed = allowed_copies() if allowed is None else allowed
    patterns = {
        exercise: (fingerprints(code), logical_lines(code), large_expressions(code))
        for exercise, code in solutions.items()
    }
    leaks = []
    for path, content in files.items():
        suffix = path.rpartition(".")[2]
        texts, blocks = _texts_without_layout(suffix, content), _blocks(suffix, content)
        expressions = large_expressions(content.decode("utf-8")) if suffix == "py" else {}
        for exercise, (codes, lines, own) in patterns.items():
            repeated = not own.keys().isdisjoint(expressions) and (exercise, path) not in allowed
            copied = any(code in text for code in codes for text in texts)
            if repeated or copied or any(is_copy(block, lines) for block in blocks):
                leaks.append((exercise, path))
    return leaks


def is_copy(block: tuple[LogicalLine, ...], solution: tuple[LogicalLine, ...]) -> bool:
    """Return whether a block of code has all lines of a solution under any names, or most of its runs of tokens."""
    if sum(len(line.value) for line in solution) < MIN_TOKENS:
        return False
    runs, block_runs = _runs(solution), set(_runs(block))
    copied = sum(run in block_runs for run in runs)
    return copied >= MOST * len(runs) or contains(block, solution)


def _runs(lines: tuple[LogicalLine, ...]) -> list[tuple[str, ...]]:
    tokens = [token for line in lines for token in line.value]
    return list(zip(*(tokens[first:] for first in range(RUN)), strict=False))


@lru_cache(4096)
def _texts_without_layout(suffix: str, content: bytes) -> list[str]:
    return list(map(_without_layout, _texts(suffix, content)))


@lru_cache(4096)
def _blocks(suffix: str, content: bytes) -> list[tuple[LogicalLine, ...]]:
    """Return the blocks of code of a page or notebook; nothing of other files."""
    return [lines for code in _shown_code(suffix, content) if (lines := logical_lines(code))]


def _shown_code(suffix: str, content: bytes) -> Iterator[str]:
    if suffix == "md":
        yield from FENCED.findall(content.decode("utf-8"))
    elif suffix == "ipynb":
        for cell in json.loads(content)["cells"]:
            source = "".join(cell["source"])
            yield from FENCED.findall(source) if cell.get("cell_type") == "markdown" else [source]


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


def _without_layout(text: str) -> str:
    lines = (TRAILING_COMMENT.sub("", line) for line in text.splitlines() if not line.strip().startswith("#"))
    return "".join("".join(line.split()) for line in lines).replace("'", '"')
