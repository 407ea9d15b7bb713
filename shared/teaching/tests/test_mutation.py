"""Bugs are planted where they should be, and tests that don't notice them are found out."""

import ast
import json
import subprocess
import sys

import pytest

from shared.course.lesson import ROOT, lesson_entries, lesson_folder
from shared.errors import CourseError
from shared.teaching.mutation import run_mutants as hunt
from shared.teaching.mutation.mutants import mutants

BUILT = [entry.number for entry in lesson_entries() if lesson_folder(entry.number)]
FLOOR = 0.85  # of a small sample; of all of them, `make mutants` asks for nine in ten

CODE = """
before = 1 + 2
def loss(x, y, *, scale=2.0):
    # exercise 9.1: a thing
    scores = x @ y.transpose(-1, -2) * scale
    scores = rearrange(scores, "b (h p) -> b p h")
    total = -scores[1:n].sum(dim=-1)
    if scale > 1 and not total.any():
        total += 1
    for one, other in zip(x, y, strict=True):
        total += zeros(3, device=one.device)
    return minimum(total, y), total
    # end exercise
"""


def planted():
    lines = CODE.splitlines()
    return mutants(CODE, lines.index("    # exercise 9.1: a thing") + 1, lines.index("    # end exercise"))


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("swapped arguments", "scores = ((y.transpose(-1, -2)) @ (x)) * scale"),
        ("swapped arguments", "scores = x @ y.transpose(-2, -1) * scale"),
        ("swapped arguments", "return minimum(y, total), total"),
        ("dropped scale", "scores = (x @ y.transpose(-1, -2))"),
        ("wrong operator", "scores = ((x @ y.transpose(-1, -2)) / (scale))"),
        ("wrong axis", "scores = rearrange(scores, 'b (h p) -> b h p')"),
        ("wrong axis", "total = -scores[1:n].sum(dim=-2)"),
        ("flipped sign", "total = (scores[1:n].sum(dim=-1))"),
        ("off by one", "total = -scores[2:n].sum(dim=-1)"),
        ("off by one", "total = -scores[(1):(n) - 1].sum(dim=-1)"),
        ("wrong function", "total = -scores[1:n].mean(dim=-1)"),
        ("dropped argument", "total = -scores[1:n].sum()"),
        ("wrong condition", "if (scale >= 1) and not total.any():".replace("(scale >= 1)", "((scale) >= (1))")),
        ("wrong condition", "if ((scale > 1) or (not total.any())):"),
        ("wrong condition", "if scale > 1 and (total.any()):"),
        ("not added up", "total = 1"),
        ("flipped sign", "total -= 1"),
        ("detached gradient", "return (minimum(total, y)).detach(), (total),"),
        ("swapped results", "return total, minimum(total, y)"),
    ],
)
def test_the_bugs_that_people_make(kind, line):
    assert any(mutant.kind == kind and mutant.code == line for mutant in planted()), line


def test_every_mutant_is_another_program_and_changes_the_exercise_alone():
    trees = {ast.dump(ast.parse(mutant.text)) for mutant in planted()}
    assert len(planted()) > 30 and ast.dump(ast.parse(CODE)) not in trees
    for mutant in planted():
        head, tail = CODE.split("    # exercise")[0], CODE.split("# end exercise")[1]
        assert mutant.text.startswith(head) and mutant.text.endswith(tail)
        assert "strict=True" in mutant.text and ("device=" in mutant.text or "zeros(" not in mutant.text)


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_exercises_tests_bite(tmp_path):
    """A sample of all planted bugs; `make mutants` runs every one."""
    found = tmp_path / "found.json"
    done = run("-m", "shared.teaching.mutation", *map(str, BUILT), "--sample", "20", "--json", str(found))
    assert found.exists(), done.stdout + done.stderr
    shares = {number: each["share"] for number, each in json.loads(found.read_text()).items()}
    assert len(shares) == len(BUILT) and min(shares.values()) >= FLOOR, done.stdout


def test_weak_tests_are_found_out(tmp_path):
    weak = tmp_path / "test_exercises_weak.py"
    weak.write_text(
        "import pytest, torch\n@pytest.mark.exercise('1.3')\ndef test_shape():\n"
        "    from lessons.lesson_01_vit.model.patches import patchify\n"
        "    assert patchify(torch.ones(1, 1, 4, 4), 2).shape == (1, 4, 4)\n"
    )
    code = (
        "import pathlib, sys\nfrom shared.teaching.mutation import run_mutants as hunt\n"
        f"hunt.exercise_tests = lambda folder: [pathlib.Path({str(weak)!r})]\n"
        "planted = hunt.planted\nhunt.planted = lambda *a: [each for each in planted(*a) if each[0].number == '1.3']\n"
        "found = hunt.hunt([1])[1]\nprint(len(found), sum(not each.by for each in found))"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    planted, survived = map(int, done.stdout.split())
    assert planted >= 8 and survived >= planted / 2


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ('exercise = "1.3"\nline = "x"\nreason = "why"', "no mutant any more"),
        ('exercise = "1.3"\nline = "x"', "without a reason"),
    ],
)
def test_the_list_of_equivalents_stays_true(monkeypatch, tmp_path, entry, said):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / hunt.EQUIVALENT).write_text(f"[[mutant]]\n{entry}\n")
    monkeypatch.setattr(hunt, "exercise_folder", lambda number: tmp_path)
    with pytest.raises(CourseError, match=said):
        hunt.planted(1)
