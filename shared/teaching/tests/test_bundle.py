"""What a student is given works by itself, and holds no solution, in no form and no corner."""

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
from shared.teaching.course_settings import assignment
from shared.teaching.markers import exercise_folder, exercises_of, part, solutions
from shared.teaching.solution_leaks import leaks

BUILT = [entry.number for entry in lesson_entries() if lesson_folder(entry.number)]
LESSON, PATCHES = "lesson_01_vit", "lessons/lesson_01_vit/model/patches.py"
SETTINGS = 'title = "A class"\n[lesson.1]\nopens = 2027-03-01\ndue = 2027-03-15\npoints = { "1.4" = 7.5 }\n'


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """The bundle of lesson 1, as `make assign-1` writes it."""
    out = tmp_path_factory.mktemp("dist")
    (out / "course.toml").write_text(SETTINGS)
    return assign(1, out, settings=out / "course.toml")


def test_the_student_runs_make_check_and_solves_one(given):
    path = given / PATCHES
    path.write_text(path.read_text().replace(part(path.read_text(), "1.3"), part((ROOT / PATCHES).read_text(), "1.3")))
    command = ["make", "-o", "setup", "check", f"RUN={sys.executable}"]
    done = subprocess.run(command, cwd=given, capture_output=True, text=True, check=False)
    lines = [line.split()[:2] for line in done.stdout.splitlines() if re.match(r"[·✓✗] ", line)]
    assert lines == [["✓" if name == "1.3" else "·", name] for name in ("1.1", "1.2", "1.3", "1.4", "1.5", "1.6")], (
        done.stdout + done.stderr
    )
    assert "1 of 6" in done.stdout and done.returncode != 0


def test_the_page_says_when_and_for_how_much(given):
    text = (given / "README.md").read_text()
    assert "Opens 2027-03-01, due 2027-03-15." in text and "A class" in text
    assert re.search(r"^\| 1\.4 .*\| 7\.5 \|$", text, flags=re.M) and re.search(
        r"^\| 1\.3 .*\| 1 \|$", text, flags=re.M
    )
    assert not re.findall(r"\{[a-z]+\}", text + (given / "Makefile").read_text())
    for target in re.findall(r"\]\(([^)]+)\)", (given / "README.md").read_text()):
        assert (given / target).exists()


def test_nothing_of_the_instructors_is_in_it(given):
    paths = [path.relative_to(given).as_posix() for path in given.rglob("*") if path.is_file()]
    assert not [
        path for path in paths if re.search(r"\.git/|\.pyc|isolation|mutant|grade|course\.toml|lesson_0[2-9]", path)
    ]
    assert {"Makefile", "conftest.py", "requirements.txt", f"lessons/{LESSON}/tests/test_exercises.py"} <= set(paths)


def test_the_zip_is_the_folder_and_the_same_every_time(tmp_path):
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
def test_no_file_holds_a_solution_and_no_notebook_an_output(number):
    files = bundle_files(number, assignment(number, exercise_folder(number)))
    for exercise in exercises_of(number):
        text = files[exercise.path.relative_to(ROOT).as_posix()].decode()
        assert part(text, exercise.number).strip().startswith("raise NotImplementedError")
    assert leaks(files, solutions(exercises_of(number))) == []
    for cells in (json.loads(text)["cells"] for path, text in files.items() if path.endswith(".ipynb")):
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.parametrize("number", BUILT)
def test_what_the_code_reads_comes_along(number):
    """Towers and texts that a lesson's code or its page names, of the lesson itself and of those it stands on."""
    files = bundle_files(number, assignment(number, exercise_folder(number)))
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "data" / "checkpoints").rglob("*") if path.is_file()}
    for lesson in range(number + 1):
        own = {path for path in there if path.startswith(f"data/checkpoints/lesson_{lesson:02d}_")}
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
    "other.py": "def f():\n        rows = weights@values\n\n        # else\n        return (rows.softmax(\n   dim = -1) * scale)\n",
    "page.md": "```python\nrows = weights @ values  # so\nreturn rows.softmax(dim=-1) * scale\n```\n",
    "lesson.ipynb": json.dumps(
        {"cells": [{"source": ["rows = weights @ values  # so\n", "return rows.softmax(dim=-1) * scale"]}]}
    ),
    "old.txt": SOLUTION,
    "old.pyc": SOLUTION,
}


@pytest.mark.parametrize("path", COPIES)
def test_a_copy_of_a_solution_is_found(path):
    files = {"right.py": b"rows = values @ weights\n", path: COPIES[path].encode()}
    assert leaks(files, {"1.9": SOLUTION}) == [("1.9", path)]


def test_a_bundle_that_would_give_a_solution_away_is_not_written(monkeypatch, tmp_path):
    page = bundle.HANDOUT / "README.md"
    (tmp_path / "README.md").write_text(page.read_text() + part((ROOT / PATCHES).read_text(), "1.3"))
    (tmp_path / "Makefile").write_text("")
    monkeypatch.setattr(bundle, "HANDOUT", tmp_path)
    with pytest.raises(CourseError, match=r"exercise 1\.3 stands in README\.md"):
        assign(1, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def test_a_notebook_is_given_without_outputs_and_solutions():
    source = ["# exercise 1.9: a thing\n", "answer = 42\n", "# end exercise"]
    cell = {"cell_type": "code", "source": source, "outputs": [{"text": "42"}], "execution_count": 3, "metadata": {}}
    found = json.loads(
        bare_notebook(json.dumps({"cells": [cell, {"cell_type": "markdown", "source": ["x"]}]}).encode())
    )
    assert "42" not in json.dumps(found) and 'raise NotImplementedError("exercise 1.9' in "".join(
        found["cells"][0]["source"]
    )
    assert found["cells"][0]["outputs"] == [] and found["cells"][1]["source"] == ["x"]


def test_those_who_bring_their_own_get_no_earlier_lesson(monkeypatch):
    monkeypatch.setattr(bundle, "earlier", lambda number: ["lesson_00_foundations"])
    given = assignment(1, exercise_folder(1))
    full, own = bundle_files(1, given), bundle_files(1, given, own=True)
    assert any(path.startswith("lessons/lesson_00") for path in full)
    assert not any(path.startswith("lessons/lesson_00") for path in own)
    assert "copy your own `lessons/lesson_00_foundations`" in own["README.md"].decode()
    assert "for lesson in lesson_00_foundations;" in own["Makefile"].decode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[lesson.1]\npoints = { 1.9 = 3 }", "1"),
        ('[lesson.1]\npoints = { "1.9" = 3 }', "does not know 1.9"),
        ('[lesson.1]\npoints = { "1.3" = -1 }', "-1"),
        ('[lesson.1]\ndue = "tomorrow"', "tomorrow"),
        ("[limits]\nmemory = 3", "memory_mb"),
        ("[limits]\nseconds = 0", "from 1 on"),
        ("[limits", "course.toml"),
        ("speed = 3", "does not know speed"),
    ],
)
def test_a_wrong_course_toml_is_explained(tmp_path, text, said):
    (tmp_path / "course.toml").write_text(text)
    with pytest.raises(CourseError, match=said):
        assignment(1, exercise_folder(1), tmp_path / "course.toml")


def test_points_are_the_difficulty_where_nothing_is_said(tmp_path):
    found = assignment(1, exercise_folder(1), tmp_path / "none.toml")
    assert found.points == {"1.1": 2, "1.2": 2, "1.3": 1, "1.4": 3, "1.5": 3, "1.6": 2}
    assert found.due is None and replace(found, due=None) == found
