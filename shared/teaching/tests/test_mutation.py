"""Test that bugs are planted where they should be, and that weak tests are detected."""

import ast
import json
import subprocess
import sys

import pytest

from shared.course.lesson import ROOT, lesson_entries, lesson_folder
from shared.errors import CourseError
from shared.teaching.mutation import run_mutants
from shared.teaching.mutation.mutants import generate_mutants

BUILT = [entry.number for entry in lesson_entries() if lesson_folder(entry.number)]
MIN_CAUGHT = 0.85  # in a small sample; `make mutants` requires 0.9 of all mutants

CODE = """
before = 1 + 2
def loss(x, y, *, scale=2.0):
    # exercise 9.1: add up
    scores = x @ y.transpose(-1, -2) * scale
    scores = rearrange(scores, "b (h p) -> b p h")
    total = -scores[1:n].sum(dim=-1)
    if scale > 1 and not total.any():
        total += 1
    for one, other in zip(x, y, strict=True):
        total += zeros(3, device=one.device)
    yield y * scale
    yield x.clamp(min=0)
    return minimum(total, y), total
    # end exercise
"""


TENSOR_CODE = """
def loss(logits, layers, image, labels) -> Float[Tensor, "classes"]:
    # exercise 9.1: add up
    rows, columns = image[0], image[1]
    states = [logits[layer] for layer in layers]
    p = logits.float().softmax(dim=-1) + F.log_softmax(logits, -1) + states[0].reshape(rows, columns).squeeze(1)
    p = p - F.cross_entropy(logits, labels) - F.logsigmoid(p) - softplus(p) - p.logsumexp(dim=0)
    return (p == labels).to(p.dtype)
    # end exercise
def number(x) -> Float[Tensor, ""]:
    return x.sum()
"""


def mutants_of_code(code=CODE):
    lines = code.splitlines()
    return generate_mutants(code, lines.index("    # exercise 9.1: add up") + 1, lines.index("    # end exercise"))


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("swapped arguments", "scores = ((y.transpose(-1, -2)) @ (x)) * scale"),
        ("swapped arguments", "scores = x @ y.transpose(-2, -1) * scale"),
        ("swapped arguments", "return minimum(y, total), total"),
        ("dropped scale", "scores = (x @ y.transpose(-1, -2))"),
        ("changed input", "yield y.mul_(scale)"),
        ("changed input", "yield x.clamp_(min=0)"),
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
def test_mutants_include(kind, line):
    assert any(mutant.kind == kind and mutant.code == line for mutant in mutants_of_code()), line


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("unstable function", "((logits.float()).exp() / (logits.float()).exp().sum(dim=-1, keepdim=True)) + F"),
        ("unstable function", "((logits).exp() / (logits).exp().sum((-1), keepdim=True)).log() + states"),
        ("unstable function", "F.nll_loss(((logits).exp() / (logits).exp().sum(dim=1, keepdim=True)).log(), (labels))"),
        ("unstable function", "- (p).sigmoid().log() -"),
        ("unstable function", "(p).exp().sum(dim=0).log()"),
        ("axes of size 1", "(states[0].reshape(rows, columns)).squeeze()"),
        ("axes of size 1", "return ((p == labels).to(p.dtype)).squeeze()"),
        ("sorted input", "for layer in sorted(layers)]"),
        ("dropped conversion", "p = (logits).softmax(dim=-1)"),
        ("dropped call", "return (p == labels)"),
        ("square only", "reshape(columns, columns)"),
        ("square only", "rows, columns = image[1], image[1]"),
        ("wrong condition", "((p) >= (labels))"),
    ],
)
def test_mutants_of_tensor_code_include(kind, part):
    matches = [mutant for mutant in mutants_of_code(TENSOR_CODE) if part in mutant.code]
    assert kind in {mutant.kind for mutant in matches}, [mutant.code for mutant in mutants_of_code(TENSOR_CODE)]


def test_a_number_has_no_axes_to_lose():
    scalar = TENSOR_CODE.replace('"classes"', '""')
    assert not any(mutant.code.startswith("return") and "squeeze" in mutant.code for mutant in mutants_of_code(scalar))


def test_mutants_differ_and_change_only_the_exercise():
    trees = {ast.dump(ast.parse(mutant.text)) for mutant in mutants_of_code()}
    assert len(mutants_of_code()) > 30 and ast.dump(ast.parse(CODE)) not in trees
    for mutant in mutants_of_code():
        head, tail = CODE.split("    # exercise")[0], CODE.split("# end exercise")[1]
        assert mutant.text.startswith(head) and mutant.text.endswith(tail)
        assert "strict=True" in mutant.text and ("device=" in mutant.text or "zeros(" not in mutant.text)


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_exercise_tests_catch_mutants(tmp_path):
    """On a sample of all mutants; `make mutants` runs every one."""
    summary = tmp_path / "summary.json"
    done = run("-m", "shared.teaching.mutation", *map(str, BUILT), "--sample", "20", "--json", str(summary))
    assert summary.exists(), done.stdout + done.stderr
    fractions = {number: each["fraction"] for number, each in json.loads(summary.read_text()).items()}
    assert len(fractions) == len(BUILT) and min(fractions.values()) >= MIN_CAUGHT, done.stdout


def test_weak_tests_are_detected(tmp_path):
    weak = tmp_path / "test_exercises_weak.py"
    weak.write_text(
        "import pytest, torch\n@pytest.mark.exercise('1.3')\ndef test_shape():\n"
        "    from lessons.lesson_01_vit.model.patches import patchify\n"
        "    assert patchify(torch.ones(1, 1, 4, 4), 2).shape == (1, 4, 4)\n"
    )
    code = (
        "import pathlib, sys\nfrom shared.teaching.mutation import run_mutants as module\n"
        f"module.exercise_tests = lambda folder: [pathlib.Path({str(weak)!r})]\n"
        "every = module.lesson_mutants\n"
        "module.lesson_mutants = lambda *a: [each for each in every(*a) if each[0].number == '1.3']\n"
        "outcomes = module.run_mutants([1])[1]\n"
        "print(len(outcomes), sum(not each.caught_by for each in outcomes))"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    planted, survived = map(int, done.stdout.split())
    assert planted >= 8 and survived >= planted / 2


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('exercise = "1.3"\nline = "x"\nreason = "why"', "no longer a mutant"),
        ('exercise = "1.3"\nline = "x"', "without a reason"),
    ],
)
def test_list_of_equivalent_mutants_is_checked(monkeypatch, tmp_path, entry, message):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / run_mutants.EQUIVALENT_MUTANTS).write_text(f"[[mutant]]\n{entry}\n")
    monkeypatch.setattr(run_mutants, "exercise_folder", lambda number: tmp_path)
    with pytest.raises(CourseError, match=message):
        run_mutants.lesson_mutants(1)
