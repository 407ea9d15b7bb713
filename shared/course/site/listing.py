"""Write a page that lists a folder's files, each Python file with the first paragraph of its docstring."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

LISTING = "files"
"""The page that lists a folder is files.html in it."""


def listing(folder: Path, files: Iterable[Path], root: Path) -> str:
    """Return the page of `folder`, given every file below it that has a page."""
    names = [path.relative_to(folder).parts for path in files]
    lines = ["---", "orphan: true", "no-search: true", "---", f"# {folder.relative_to(root).as_posix()}", ""]
    if folder.parent != root:
        lines.append(f"* [..](../{LISTING}.md)")
    lines += [f"* [`{name}/`]({name}/{LISTING}.md)" for name in sorted({parts[0] for parts in names if len(parts) > 1})]
    for (name,) in (parts for parts in names if len(parts) == 1):
        summary = first_paragraph(folder / name) if name.endswith(".py") else ""
        lines.append(f"* [`{name}`]({name})" + (f": {summary}" if summary else ""))
    return "\n".join(lines) + "\n"


def first_paragraph(path: Path) -> str:
    """Return the first paragraph of a module's docstring, as Markdown that renders to the same characters."""
    paragraph = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    pieces = re.split(r"(`[^`]+`)", " ".join(paragraph.split()))
    # Markdown does not interpret text between backticks; elsewhere its special characters are escaped.
    return "".join(piece if piece.startswith("`") else re.sub(r"([*_$<\[\]\\])", r"\\\1", piece) for piece in pieces)
