"""The course's vocabulary: docs/terms.toml lists the words that are not used, and their replacements.

Run `python tests/test_terms.py [PATH …]` to list every use in some files or folders.
"""

import ast
import fnmatch
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = (".py", ".md", ".ipynb", ".toml")
# A word is a run of letters between a change of case, an underscore or any other character: PatchEmbedding has two.
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def load_terms() -> dict:
    """Read docs/terms.toml, with patterns compiled."""
    terms = tomllib.loads((ROOT / "docs" / "terms.toml").read_text(encoding="utf-8"))
    terms["patterns"] = {re.compile(pattern): use for pattern, use in terms["patterns"].items()}
    for exception in terms["except"]:
        exception["text"] = re.compile(exception.get("text", ".*"), re.IGNORECASE)
    return terms


def tracked_files() -> list[str]:
    """Every tracked file that holds text or code, relative to the repository's root."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listing.splitlines() if name.endswith(SUFFIXES) and (ROOT / name).is_file()]


def lines_of(name: str) -> Iterator[tuple[str, str]]:
    """Yield (place, line) of a file; of a notebook the sources and printed outputs of its cells, images left out."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if not name.endswith(".ipynb"):
        yield from ((str(number), line) for number, line in enumerate(text.splitlines(), 1))
        return
    for index, cell in enumerate(json.loads(text)["cells"]):
        yield from ((f"cell {index}", line) for line in "".join(cell["source"]).splitlines())
        for output in cell.get("outputs", []):
            printed = output.get("text", output.get("data", {}).get("text/plain", ""))
            yield from ((f"cell {index} output", line) for line in "".join(printed).splitlines())


def defined_names(name: str) -> Iterator[tuple[str, str]]:
    """Yield (place, name) of every variable, parameter, attribute, function and class that a Python file defines."""
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        match node:
            case ast.Name(id=found, ctx=ast.Store()) | ast.Attribute(attr=found, ctx=ast.Store()):
                yield str(node.lineno), found
            case ast.arg(arg=found) | ast.FunctionDef(name=found) | ast.ClassDef(name=found):
                yield str(node.lineno), found


def uses(name: str, terms: dict) -> list[str]:
    """List every forbidden use in a file as "file:place: word → replacement"."""
    exceptions = [each for each in terms["except"] if fnmatch.fnmatch(name, each["files"])]
    listed = []

    def report(place: str, line: str, span: tuple[int, int], use: str) -> None:
        for exception in exceptions:
            for match in exception["text"].finditer(line):
                if match.start() <= span[0] and span[1] <= match.end():
                    return
        listed.append(f"{name}:{place}: {line[slice(*span)].strip()!r} → {use}")

    for place, line in lines_of(name):
        for match in WORD.finditer(line):
            if use := terms["words"].get(match[0].lower()):
                report(place, line, match.span(), use)
        for pattern, use in terms["patterns"].items():
            if match := pattern.search(line):
                report(place, line, match.span(), use)
    if name.endswith(".py"):
        for place, defined in defined_names(name):
            if use := terms["names"].get(defined.lower().strip("_")):
                report(place, defined, (0, len(defined)), use)
    return listed


TERMS = load_terms()


@pytest.mark.parametrize("name", tracked_files())
def test_no_forbidden_term_is_used(name):
    assert uses(name, TERMS) == []


def test_a_forbidden_term_is_noticed_as_a_part_of_a_name_and_an_exception_covers_its_own_text_only(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "code.py").write_text("eye_width = 1\nkeyed = 2\nsaid = 'EyeConfig'  # the eye of a needle\n")
    terms = TERMS | {"except": [{"files": "*.py", "text": re.compile("eye of a needle")}]}
    assert [line.split(": ")[1].split(" ")[0] for line in uses("code.py", terms)] == ["'eye'", "'Eye'", "'said'"]


if __name__ == "__main__":
    roots = sys.argv[1:] or [""]
    listed = [line for name in tracked_files() if name.startswith(tuple(roots)) for line in uses(name, TERMS)]
    print("\n".join(listed))
    print(f"{len(listed)} uses of {len({line.split(': ')[1].split(' →')[0].lower() for line in listed})} terms")
