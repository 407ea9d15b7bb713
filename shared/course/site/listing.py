"""A page that lists what is in a folder, each file of code with the first thing that it says about itself."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

LISTING = "files"
"""The page that lists a folder is files.html in it."""


def listing(folder: Path, files: Iterable[Path], root: Path) -> str:
    """The page of `folder`, given every file below it that has a page of its own."""
    names = [path.relative_to(folder).parts for path in files]
    lines = ["---", "orphan: true", "no-search: true", "---", f"# {folder.relative_to(root).as_posix()}", ""]
    if folder.parent != root:
        lines.append(f"* [..](../{LISTING}.md)")
    lines += [f"* [`{name}/`]({name}/{LISTING}.md)" for name in sorted({parts[0] for parts in names if len(parts) > 1})]
    for (name,) in (parts for parts in names if len(parts) == 1):
        says = first_words(folder / name) if name.endswith(".py") else ""
        lines.append(f"* [`{name}`]({name})" + (f": {says}" if says else ""))
    return "\n".join(lines) + "\n"


def first_words(path: Path) -> str:
    """How a module begins to describe itself, as Markdown that shows the same characters."""
    said = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    pieces = re.split(r"(`[^`]+`)", " ".join(said.split()))
    # Between backticks nothing means anything; elsewhere a star, a dollar or a bracket would.
    return "".join(piece if piece.startswith("`") else re.sub(r"([*_$<\[\]\\])", r"\\\1", piece) for piece in pieces)
