"""Test the nbgrader assignment: its notebook restores every solution, and nbgrader itself grades it where installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from shared.course.exercises import without_solutions
from shared.course.lesson import ROOT, lesson_entries, lesson_folder
from shared.errors import CourseError
from shared.teaching import notebook_exercises
from shared.teaching.assign import assign_nbgrader, hidden_seed
from shared.teaching.course_settings import load_assignment
from shared.teaching.exercise_result import ExerciseResult
from shared.teaching.markers import exercise_folder, exercises_of
from shared.teaching.nbgrader_format import enclosing_code, nbgrader_notebook
from shared.teaching.notebook_exercises import check_exercise, insert_code, load_ipython_extension

BUILT = [entry.number for entry in lesson_entries() if lesson_folder(entry.number)]
SEED = 8_192


def lesson_notebook(number):
    content = nbgrader_notebook(number, load_assignment(number, exercise_folder(number)), SEED)
    return nbformat.reads(content.decode(), as_version=4)


def role(cell):
    return cell.metadata.nbgrader.grade_id.split("-")[0]


@pytest.mark.parametrize("number", BUILT)
def test_cells_restore_every_solution(number):
    cells = lesson_notebook(number).cells
    answers = [cell.source for cell in cells if role(cell) == "solution"]
    exercises = exercises_of(number)
    assert len(answers) == len(exercises)
    for exercise, source in zip(exercises, answers, strict=True):
        magic, code = source.split("\n", 1)
        assert magic == f"%%exercise {exercise.number}"
        text = exercise.path.read_text()
        opened = without_solutions(text, [exercise.number])
        assert opened != text
        filled = insert_code(opened, exercise.number, code)
        without_markers = [line for line in filled.splitlines() if "### " not in line]
        assert [line.rstrip() for line in text.splitlines()] == [line.rstrip() for line in without_markers]


@pytest.mark.parametrize("number", BUILT)
def test_what_students_read_is_open_and_graded_cells_have_the_points(number):
    notebook = lesson_notebook(number)
    nbformat.validate(notebook)
    assignment = load_assignment(number, exercise_folder(number))
    graded = {cell.metadata.nbgrader.grade_id: cell for cell in notebook.cells if cell.metadata.nbgrader.grade}
    assert len(graded) == len(exercises_of(number))
    for exercise in exercises_of(number):
        cell = graded["tests-" + exercise.number.replace(".", "-")]
        assert cell.metadata.nbgrader.points == assignment.points[exercise.number] and cell.metadata.nbgrader.locked
        before_hidden, hidden = cell.source.split("### BEGIN HIDDEN TESTS")
        assert str(SEED) in hidden and str(SEED) not in before_hidden
        code = enclosing_code(exercise)
        assert f'raise NotImplementedError("exercise {exercise.number}: ' in code and "# end exercise" in code
    names = [cell.metadata.nbgrader.grade_id for cell in notebook.cells]
    assert len(set(names)) == len(names)


def test_code_that_is_not_python_is_refused_at_its_line():
    text = "def f(x):\n    # exercise 1.9: double\n    raise NotImplementedError\n    # end exercise\n"
    assert insert_code(text, "1.9", "y = 2 * x\nreturn y\n").splitlines()[2:4] == ["    y = 2 * x", "    return y"]
    with pytest.raises(SyntaxError) as error:
        insert_code(text, "1.9", "y = 2 * x\nreturn y +\n")
    assert error.value.lineno == 2


class Shell:
    """What the extension uses of a notebook's shell."""

    def __init__(self):
        self.magics, self.names = {}, {}

    def register_magic_function(self, function, magic_kind):
        self.magics[function.__name__, magic_kind] = function

    def push(self, names):
        self.names |= names


def test_magic_writes_into_its_own_folder_only(monkeypatch, tmp_path, capsys):
    lesson = tmp_path / "lessons" / "lesson_01_vit"
    shutil.copytree(ROOT / "lessons" / "lesson_01_vit" / "model", lesson / "model")
    monkeypatch.setattr(notebook_exercises, "ROOT", tmp_path)
    exercises = {each.number: each for each in exercises_of(1)}
    path = lesson / "model" / "patches.py"
    monkeypatch.setattr(
        notebook_exercises, "find_exercise", lambda number: type(exercises[number])(number, "", path, 0, 0)
    )
    with pytest.raises(CourseError, match="start Jupyter in its own folder"):
        load_ipython_extension(Shell())
    monkeypatch.chdir(tmp_path)
    load_ipython_extension(shell := Shell())
    shell.magics["exercise", "cell"](" 1.3 ", "return 1  # mine\n")
    assert "        return 1  # mine\n" in path.read_text() or "    return 1  # mine\n" in path.read_text()
    assert capsys.readouterr().out == "written to lessons/lesson_01_vit/model/patches.py\n"
    assert shell.names["check_exercise"] is check_exercise


@pytest.mark.parametrize("number", ["1", "1.99", "one.two", "1.2.3"])
def test_exercise_that_does_not_exist_is_named(number):
    with pytest.raises(CourseError, match="exercise"):
        notebook_exercises.find_exercise(number)


def test_seed_is_one_with_which_the_solution_passes(monkeypatch):
    tried = []

    def check(lesson, seed):
        tried.append(seed)
        return {"1.1": ExerciseResult(tests=1, passed=int(len(tried) == 2))}

    monkeypatch.setattr("shared.teaching.assign.check", check)
    assert hidden_seed(1) == tried[1] and len(set(tried)) == 2
    monkeypatch.setattr("shared.teaching.assign.check", lambda lesson, seed: {"1.1": ExerciseResult(tests=1)})
    with pytest.raises(CourseError, match="does not pass"):
        hidden_seed(1)


def nbgrader(course: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "nbgrader", *arguments]
    # It starts programs of its environment by name, so that has to be active.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path}
    done = subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_nbgrader_gives_the_points_of_solved_exercises(tmp_path):
    """The whole way through nbgrader: source → release without solutions → one solved exercise → its points."""
    pytest.importorskip("nbgrader", reason="nbgrader is not a package of the course")
    source = assign_nbgrader(1, tmp_path)
    course, name = source.parents[1], source.name
    nbgrader(course, "generate_assignment", name)
    release = nbformat.read(course / "release" / name / f"{name}.ipynb", as_version=4)
    original = nbformat.read(source / f"{name}.ipynb", as_version=4)
    assert "SOLUTION" not in json.dumps(release) and "seed=" not in json.dumps(release)
    shutil.copytree(course / "release" / name, course / "submitted" / "ada" / name)
    for cell, solved in zip(release.cells, original.cells, strict=True):
        if cell.metadata.nbgrader.grade_id == "solution-1-3":
            cell.source = solved.source.replace("### BEGIN SOLUTION\n", "").replace("\n### END SOLUTION", "")
    nbformat.write(release, course / "submitted" / "ada" / name / f"{name}.ipynb")
    nbgrader(course, "autograde", name)
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        grades = gradebook.find_submission_notebook(name, name, "ada").grades
        assert {each.name: each.auto_score for each in grades if each.auto_score} == {"tests-1-3": 1}
