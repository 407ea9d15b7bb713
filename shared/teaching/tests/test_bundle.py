"""Test that a student's bundle works on its own and contains no solution in any form."""

import json
import re
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest

from shared.course.lesson import ROOT, lesson_entries, lesson_folder
from shared.errors import CourseError
from shared.teaching import bundle
from shared.teaching.assign import assign
from shared.teaching.bundle import bare_notebook, bundle_files
from shared.teaching.course_settings import load_assignment
from shared.teaching.logical_lines import contains, logical_lines
from shared.teaching.markers import exercise_code, exercise_folder, exercises_of, solutions
from shared.teaching.solution_leaks import allowed_copies, find_leaks

BUILT = [entry.number for entry in lesson_entries() if lesson_folder(entry.number)]
LESSON, PATCHES = "lesson_01_vit", "lessons/lesson_01_vit/model/patches.py"
SETTINGS = 'title = "A class"\n[lesson.1]\nopens = 2027-03-01\ndue = 2027-03-15\npoints = { "1.4" = 7.5 }\n'


@pytest.fixture(scope="module")
def student_folder(tmp_path_factory):
    """The bundle of lesson 1, as `make assign-1` writes it."""
    out = tmp_path_factory.mktemp("dist")
    (out / "course.toml").write_text(SETTINGS)
    return assign(1, out, settings=out / "course.toml")


def test_student_runs_make_check_and_solves_one(student_folder):
    path = student_folder / PATCHES
    path.write_text(
        path.read_text().replace(
            exercise_code(path.read_text(), "1.3"), exercise_code((ROOT / PATCHES).read_text(), "1.3")
        )
    )
    command = ["make", "-o", "setup", "check", f"RUN={sys.executable}"]
    done = subprocess.run(command, cwd=student_folder, capture_output=True, text=True, check=False)
    lines = [line.split()[:2] for line in done.stdout.splitlines() if re.match(r"[·✓✗] ", line)]
    assert lines == [["✓" if name == "1.3" else "·", name] for name in ("1.1", "1.2", "1.3", "1.4", "1.5", "1.6")], (
        done.stdout + done.stderr
    )
    assert "1 of 6" in done.stdout and done.returncode != 0


def test_page_has_dates_and_points(student_folder):
    text = (student_folder / "README.md").read_text()
    assert "Opens 2027-03-01, due 2027-03-15." in text and "A class" in text
    assert re.search(r"^\| 1\.4 .*\| 7\.5 \|$", text, flags=re.M) and re.search(
        r"^\| 1\.3 .*\| 1 \|$", text, flags=re.M
    )
    assert not re.findall(r"\{[a-z]+\}", text + (student_folder / "Makefile").read_text())
    for target in re.findall(r"\]\(([^)]+)\)", (student_folder / "README.md").read_text()):
        assert (student_folder / target).exists()


def test_bundle_contains_nothing_of_the_instructors(student_folder):
    paths = [path.relative_to(student_folder).as_posix() for path in student_folder.rglob("*") if path.is_file()]
    assert not [
        path for path in paths if re.search(r"\.git/|\.pyc|isolation|mutant|grade|course\.toml|lesson_0[2-9]", path)
    ]
    assert {"Makefile", "conftest.py", "requirements.txt", f"lessons/{LESSON}/tests/test_exercises.py"} <= set(paths)


def test_zip_equals_the_folder_and_is_reproducible(tmp_path):
    folders = [assign(1, tmp_path / name) for name in ("one", "two")]
    zips = [folder.with_suffix(".zip") for folder in folders]
    assert zips[0].read_bytes() == zips[1].read_bytes()
    with zipfile.ZipFile(zips[0]) as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
    outside = {
        f"{LESSON}/{p.relative_to(folders[0]).as_posix()}": p.read_bytes() for p in folders[0].rglob("*") if p.is_file()
    }
    assert inside == outside


@pytest.mark.parametrize("number", BUILT)
def test_no_file_contains_a_solution_and_no_notebook_an_output(number):
    files = bundle_files(number, load_assignment(number, exercise_folder(number)))
    for exercise in exercises_of(number):
        text = files[exercise.path.relative_to(ROOT).as_posix()].decode()
        assert exercise_code(text, exercise.number).strip().startswith("raise NotImplementedError")
    assert find_leaks(files, solutions(exercises_of(number))) == []
    # Without the list of allowed copies, exactly those are left.
    listed = {(exercise, path) for exercise, path in allowed_copies() if exercise.split(".")[0] == str(number)}
    assert set(find_leaks(files, solutions(exercises_of(number)), allowed=())) == listed
    for cells in (json.loads(text)["cells"] for path, text in files.items() if path.endswith(".ipynb")):
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.parametrize("number", BUILT)
def test_files_that_the_code_reads_are_included(number):
    """The checkpoints and files that a lesson's code or page names, of the lesson and of earlier ones."""
    files = bundle_files(number, load_assignment(number, exercise_folder(number)))
    checkpoint_files = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "data" / "checkpoints").rglob("*") if path.is_file()
    }
    for lesson in range(number + 1):
        own = {path for path in checkpoint_files if path.startswith(f"data/checkpoints/lesson_{lesson:02d}_")}
        assert own <= set(files), own - set(files)
    assert not [
        path
        for path in files
        if re.match(rf"data/checkpoints/lesson_(?!{'|'.join(f'{n:02d}' for n in range(number + 1))})", path)
    ]
    folder = exercise_folder(number)
    for page in folder.rglob("README.md"):
        for target in re.findall(r"\]\(([\w./-]+)\)", page.read_text(encoding="utf-8")):
            goal = (page.parent / target).resolve()
            if goal.is_file() and goal.is_relative_to(folder):
                assert goal.relative_to(ROOT).as_posix() in files, f"{page}: {target}"


SOLUTION = "    # Why.\n    rows = weights @ values  # so\n    return rows.softmax(dim=-1) * scale\n"
COPIES = {
    "other.py": "def f():\n        rows = weights@values\n\n        # else\n"
    "        return (rows.softmax(\n   dim = -1) * scale)\n",
    "page.md": "```python\nrows = weights @ values  # so\nreturn rows.softmax(dim=-1) * scale\n```\n",
    "lesson.ipynb": json.dumps(
        {"cells": [{"source": ["rows = weights @ values  # so\n", "return rows.softmax(dim=-1) * scale"]}]}
    ),
    "old.txt": SOLUTION,
    "old.pyc": SOLUTION,
}


@pytest.mark.parametrize("path", COPIES)
def test_copy_of_a_solution_is_found(path):
    files = {"right.py": b"rows = values @ weights\n", path: COPIES[path].encode()}
    assert find_leaks(files, {"1.9": SOLUTION}) == [("1.9", path)]


TREE = "    scores = (query @ key.transpose(-1, -2)) * scale + torch.where(mask, 0.0, -math.inf)\n    return scores\n"
TREES = {
    "test.py": "def test():\n    close(student(a), (q @ k.transpose(-1, -2)) * s + torch.where(m, 0.0, -math.inf))\n",
    "neighbor.py": "x = [(\n    a @ b.transpose(-1, -2)) * c  # why\n    + torch.where(d, 0.0, -math.inf)]\n",
}


@pytest.mark.parametrize("path", TREES)
def test_large_expression_of_a_solution_is_found_under_any_names(path):
    files = {path: TREES[path].encode(), "other.py": TREES[path].replace("0.0", "1.0").encode()}
    assert find_leaks(files, {"1.9": TREE}) == [("1.9", path)]
    assert find_leaks(files, {"1.9": TREE}, allowed=[("1.9", path)]) == []


NEAR_COPIES = {
    "comments after each line": "rows = weights @ values  # so\nreturn rows.softmax(dim=-1) * scale  # scalar",
    "other names": "mixed = p @ v\nresult = mixed.softmax(dim=-1) * factor",
    "a line between": "rows = weights @ values\nprint(rows.shape)\noutput = rows.softmax(dim=-1) * scale",
    "other line breaks": "rows = (\n    weights\n    @ values\n)\nreturn rows.softmax(dim=-1) * scale",
    "one line only": "output = (weights @ values).softmax(dim=-1) * scale",
}
OTHER_FORMS = {
    "one row": "for i in range(n):\n    terms = [exp(x) for x in scores[i]]\n    y[i] = scale * terms / sum(terms)",
    "no code": "make lesson-1  # a minute\n",
}


@pytest.mark.parametrize("code", NEAR_COPIES.values(), ids=NEAR_COPIES)
@pytest.mark.parametrize("path", ["page.md", "lesson.ipynb"])
def test_near_copy_of_a_solution_on_a_page_is_found(path, code):
    assert find_leaks({path: _page(path, code)}, {"1.9": SOLUTION}) == [("1.9", path)]


@pytest.mark.parametrize("code", OTHER_FORMS.values(), ids=OTHER_FORMS)
def test_the_idea_in_another_form_is_allowed(code):
    assert find_leaks({"page.md": _page("page.md", code)}, {"1.9": SOLUTION}) == []


@pytest.mark.parametrize(("code", "matches"), [("y = p @ q", True), ("y = p @ p", False), ("y = p * q", False)])
def test_each_name_stands_for_one_other(code, matches):
    assert contains(logical_lines(code), logical_lines("rows = weights @ values")) == matches


def _page(path: str, code: str) -> bytes:
    """Return a page or a notebook that shows the code."""
    if path.endswith(".md"):
        return f"Text.\n\n```python\n{code}\n```\n".encode()
    return json.dumps({"cells": [{"cell_type": "code", "source": code.splitlines(keepends=True)}]}).encode()


def test_bundle_with_a_solution_is_not_written(monkeypatch, tmp_path):
    page = bundle.HANDOUT / "README.md"
    (tmp_path / "README.md").write_text(page.read_text() + exercise_code((ROOT / PATCHES).read_text(), "1.3"))
    (tmp_path / "Makefile").write_text("")
    monkeypatch.setattr(bundle, "HANDOUT", tmp_path)
    with pytest.raises(CourseError, match=r"exercise 1\.3 is in README\.md"):
        assign(1, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def test_notebook_has_no_outputs_and_no_solutions():
    source = ["# exercise 1.9: a title\n", "answer = 42\n", "# end exercise"]
    cell = {"cell_type": "code", "source": source, "outputs": [{"text": "42"}], "execution_count": 3, "metadata": {}}
    notebook = json.loads(
        bare_notebook(json.dumps({"cells": [cell, {"cell_type": "markdown", "source": ["x"]}]}).encode())
    )
    assert "42" not in json.dumps(notebook) and 'raise NotImplementedError("exercise 1.9' in "".join(
        notebook["cells"][0]["source"]
    )
    assert notebook["cells"][0]["outputs"] == [] and notebook["cells"][1]["source"] == ["x"]


def test_own_work_leaves_out_earlier_lessons(monkeypatch):
    monkeypatch.setattr(bundle, "earlier_work", lambda number: ["lessons/lesson_00_foundations"])
    assignment = load_assignment(1, exercise_folder(1))
    full, own = bundle_files(1, assignment), bundle_files(1, assignment, own=True)
    assert any(path.startswith("lessons/lesson_00") for path in full)
    assert not any(path.startswith("lessons/lesson_00") for path in own)
    assert "copy your own `lessons/lesson_00_foundations`" in own["README.md"].decode()
    assert "for path in lessons/lesson_00_foundations;" in own["Makefile"].decode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[lesson.1]\npoints = { 1.9 = 3 }", "1"),
        ('[lesson.1]\npoints = { "1.9" = 3 }', "unknown in the points of lesson 1: 1.9"),
        ('[lesson.1]\npoints = { "1.3" = -1 }', "-1"),
        ('[lesson.1]\ndue = "tomorrow"', "tomorrow"),
        ("[limits]\nmemory = 3", "memory_mb"),
        ("[limits]\nseconds = 0", "from 1 on"),
        ("[limits", "course.toml"),
        ("speed = 3", "unknown in the file: speed"),
    ],
)
def test_invalid_course_toml_is_explained(tmp_path, text, message):
    (tmp_path / "course.toml").write_text(text)
    with pytest.raises(CourseError, match=message):
        load_assignment(1, exercise_folder(1), tmp_path / "course.toml")


def test_default_points_are_the_difficulty(tmp_path):
    assignment = load_assignment(1, exercise_folder(1), tmp_path / "none.toml")
    assert assignment.points == {"1.1": 2, "1.2": 2, "1.3": 1, "1.4": 3, "1.5": 3, "1.6": 2}
    assert assignment.due is None and replace(assignment, due=None) == assignment
