"""Import rules between the parts of the repository, checked by parsing the code (see docs/ARCHITECTURE.md)."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shared.course.lesson import ROOT
from shared.stdlib.output import NO_READER
from shared.testing import quick_run

STDLIB = set(sys.stdlib_module_names)
ORACLES = {"transformers", "diffusers", "peft", "torchvision", "tokenizers", "sentencepiece", "sklearn"}
STDLIB_TOYBOX = {
    f"data.toybox.{name}"
    for name in (
        *("conversations", "documents", "episodes", "heldout", "language", "questions", "raster", "scene"),
        *(f"page.{name}" for name in ("content", "font", "layouts", "pages", "questions", "raster")),
        *(f"video.{name}" for name in ("clip", "frames", "generation", "language", "question_types", "questions")),
    )
}
# Modules that measure or draw: evaluate.py, evaluate_images.py, figures.py, or a module in a folder of such a name.
EVALUATION = re.compile(r"/(evaluate|figures)[a-z_]*(\.py$|/)")
FILES = [
    path
    for top in ("shared", "data", "lessons", "apps", "benchmarks")
    for path in sorted((ROOT / top).rglob("*.py"))
    if "tests" not in path.parts and "cache" not in path.parts
]


def imported_modules(path: Path) -> set[str]:
    """Return the full names of all modules and names that a file imports, anywhere in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: use absolute imports"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def lesson_number(name: str) -> int | None:
    match = re.match(r"lessons[./]lesson_(\d+)_", name)
    return int(match[1]) if match else None


def broken_rule(file: str, module: str) -> str | None:
    """Return the rule that `file` breaks by importing `module` (a dotted name), or None."""
    package = module.split(".")[0]
    if package in ORACLES and not file.startswith("benchmarks/"):
        return "only tests and benchmarks import other implementations"
    if package == "apps" and not file.startswith(("apps/", "benchmarks/")):
        return "only apps, tests and benchmarks import apps"
    if file.startswith(("shared/", "data/")) and package == "lessons":
        return "shared and data import no lesson"
    if file.startswith("shared/stdlib/") and package not in STDLIB and not is_within(module, {"shared.stdlib"}):
        return "shared.stdlib imports only the standard library"
    if file.endswith("/reference.py") and package not in STDLIB:
        packages = {"shared", "data", "data.toybox"}
        if module not in packages and not is_within(module, {"shared.stdlib", *STDLIB_TOYBOX}):
            return "a reference imports only the standard library, shared.stdlib and the standard-library toy world"
    if file.startswith(("lessons/", "apps/")) and is_within(module, {"shared.judge"}) and not EVALUATION.search(file):
        return "only evaluation imports the judge; what trains a generator must not depend on it"
    own, other = lesson_number(file), lesson_number(module)
    if other is not None and other != own:
        if own is not None and other > own:
            return "a lesson imports only lessons with lower numbers"
        inside = module.split(".")[2:]
        if inside and "model" not in inside and not is_part(inside) and not file.startswith("benchmarks/"):
            return "only a lesson's model/ is imported from outside; move other shared code to shared/ or data/"
    return None


def is_part(inside: list[str]) -> bool:
    """Return whether the path within a lesson is the package of a part, as `decoder` in lesson 0, and nothing in it."""
    return len(inside) == 1 and any((ROOT / "lessons").glob(f"*/{inside[0]}/model*"))


def broken_rules(path: Path) -> dict[str, str]:
    """Return the imports of a file that break a rule, with the rule. A module stands for all names imported from it."""
    file, broken = path.relative_to(ROOT).as_posix(), {}
    for module in sorted(imported_modules(path)):  # a module comes before the names in it
        if not is_within(module, set(broken)) and (rule := broken_rule(file, module)):
            broken[module] = rule
    return broken


def is_within(module: str, packages: set[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_follow_the_rules(path):
    assert broken_rules(path) == {}


@pytest.mark.parametrize(
    ("file", "module"),
    [
        ("lessons/lesson_03_blip2/experiment/data.py", "lessons.lesson_02_clip.experiment.data"),
        ("lessons/lesson_03_blip2/model/blip2.py", "lessons.lesson_02_clip.classify"),
        ("lessons/lesson_02_clip/model/clip.py", "lessons.lesson_03_blip2.model"),
        ("lessons/lesson_02_clip/model/clip.py", "apps.captioner"),
        ("apps/captioner/model.py", "lessons.lesson_02_clip.experiment.data"),
        ("shared/training/loop.py", "lessons.lesson_01_vit.model"),
        ("data/toybox/image.py", "apps.captioner"),
        ("lessons/lesson_11_chameleon/experiment/train.py", "shared.judge"),
        ("lessons/lesson_11_chameleon/model/chameleon.py", "shared.judge.model"),
        ("shared/stdlib/tensor.py", "torch"),
        ("shared/stdlib/tensor.py", "shared.errors"),
        ("lessons/lesson_01_vit/reference.py", "shared.stdlib_extra"),
        ("lessons/lesson_01_vit/model/vit.py", "transformers"),
    ],
)
def test_each_rule_notices_a_violation(file, module):
    assert broken_rule(file, module)


def test_packages_above_a_reference_are_empty():
    """`python -S -m lessons.….reference` runs every `__init__.py` above it."""
    for top in ("shared", "shared/stdlib", "data", "data/toybox", "lessons"):
        assert (ROOT / top / "__init__.py").read_text() == "", top
    for path in (ROOT / "lessons").rglob("__init__.py"):
        if not (path.parent / "reference.py").exists():
            continue
        assert path.read_text() == "", path


def test_the_stdlib_engine_and_toy_world_load_with_nothing_installed():
    modules = [f"shared.stdlib.{path.stem}" for path in sorted((ROOT / "shared/stdlib").glob("[!_]*.py"))]
    code = "; ".join(f"import {name}" for name in [*modules, *sorted(STDLIB_TOYBOX)])
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# A lesson with several parts has one reference that runs the references of its parts; each part is run alone here.
REFERENCES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for path in (ROOT / "lessons").rglob("reference.py")
    if not list(path.parent.glob("*/reference.py"))
)


# Those that a test of their lesson runs with `quick_run`, and then looks at what they print.
RUN_BY_THEIR_LESSON = {
    reference
    for path in (ROOT / "lessons").rglob("tests/test_*.py")
    for reference in re.findall(r'\bquick_run\("([\w.]+)"\)', path.read_text(encoding="utf-8"))
}


@pytest.mark.parametrize("reference", [name for name in REFERENCES if name not in RUN_BY_THEIR_LESSON])
def test_each_reference_runs_with_nothing_installed(reference):
    quick_run(reference)


def test_references_that_their_lessons_run_exist():
    assert set(REFERENCES) >= RUN_BY_THEIR_LESSON


@pytest.mark.parametrize("reference", [*REFERENCES, "lessons.lesson_00_foundations.reference"])
def test_each_reference_ends_silently_when_its_output_is_no_longer_read(reference):
    """As `make reference-1 | head` does; what --help prints is flushed as the last output of a run is."""
    command = [sys.executable, "-S", "-m", reference, "--help"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (NO_READER, "")
