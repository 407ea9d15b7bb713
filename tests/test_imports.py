"""Who may import whom: the rules that keep the house standing, read from the code itself."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shared.course.lesson import ROOT

STDLIB = set(sys.stdlib_module_names)
ORACLES = {"transformers", "diffusers", "peft", "torchvision", "tokenizers", "sentencepiece", "sklearn"}
TOYBOX_OF_THE_STDLIB = {f"data.toybox.{name}" for name in ("scene", "language", "questions", "raster", "heldout")}
FILES = [
    path
    for top in ("shared", "data", "lessons", "apps")
    for path in sorted((ROOT / top).rglob("*.py"))
    if "tests" not in path.parts and "cache" not in path.parts
]


def imported(path: Path) -> set[str]:
    """Full names of all that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: say the whole name, not a relative one"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def lesson_number(name: str) -> int | None:
    found = re.match(r"lessons[./]lesson_(\d+)_", name)
    return int(found[1]) if found else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_keep_the_rules(path):
    place, names = path.relative_to(ROOT).as_posix(), imported(path)
    assert {name.split(".")[0] for name in names} & ORACLES == set(), "oracles are for tests and benchmarks"
    if place.startswith(("shared/", "data/")):
        assert [name for name in names if name.split(".")[0] == "lessons"] == [], "shared and data know no lesson"
    if place.startswith("shared/stdlib/"):
        assert {
            name for name in names if name.split(".")[0] not in STDLIB and not name.startswith("shared.stdlib")
        } == set()
    if place.startswith("lessons/"):
        own = lesson_number(place)
        assert [name for name in names if (lesson_number(name) or 0) > (own or 0)] == [], (
            "a lesson builds on earlier ones"
        )
    if place.endswith("/reference.py"):
        allowed = ("shared.stdlib", *TOYBOX_OF_THE_STDLIB)
        outside = {name for name in names if name.split(".")[0] not in STDLIB and not name.startswith(allowed)}
        assert outside - {"shared", "data", "data.toybox"} == set(), "a reference stands on the standard library alone"


def test_nothing_stands_above_a_reference():
    """`python -S -m lessons.….reference` runs every `__init__.py` above it."""
    for top in ("shared", "shared/stdlib", "data", "data/toybox", "lessons"):
        assert (ROOT / top / "__init__.py").read_text() == "", top
    for path in (ROOT / "lessons").rglob("__init__.py"):
        if not (path.parent / "reference.py").exists():
            continue
        assert path.read_text() == "", path


def test_the_stdlib_engine_and_toy_world_load_with_nothing_installed():
    modules = [f"shared.stdlib.{path.stem}" for path in sorted((ROOT / "shared/stdlib").glob("[!_]*.py"))]
    code = "; ".join(f"import {name}" for name in [*modules, *sorted(TOYBOX_OF_THE_STDLIB)])
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# A lesson of several parts has one reference that runs the others in turn; each of them is run here by itself.
REFERENCES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for path in (ROOT / "lessons").rglob("reference.py")
    if not list(path.parent.glob("*/reference.py"))
)


@pytest.mark.parametrize("reference", REFERENCES)
def test_each_reference_runs_with_nothing_installed(reference):
    command = [sys.executable, "-S", "-m", reference, "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "it says what it has measured"
