"""Write a lesson's exercises as an nbgrader assignment: the students' bundle and one notebook with a cell for each.

The folder is an assignment's *source*: its notebook holds the solutions, which `nbgrader generate_assignment` removes.
"""

import ast
import textwrap

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from shared.course.exercises import Exercise, without_solutions
from shared.course.lesson import ROOT
from shared.teaching.course_settings import Assignment
from shared.teaching.markers import ExerciseInfo, exercise_code, exercise_folder, exercise_table, exercises_of

CONFIG = "nbgrader_config.py"
SCHEMA_VERSION = 3  # of nbgrader's cell metadata
INTRODUCTION = """\
# {title}

Each exercise is a part of the code in this folder. Its cell begins with `%%exercise`. Run the cell: it writes your code
between the markers in the file. The cell below it runs the exercise's tests, as often as you like.

Start Jupyter in this folder, in an environment with the packages of `requirements.txt`. Leave the cells with tests as
they are. The lesson is in [lessons/{lesson}/README.md](lessons/{lesson}/README.md)."""


def nbgrader_notebook(number: int, assignment: Assignment, seed: int) -> bytes:
    """Return the notebook of a lesson's exercises with nbgrader's metadata, and with the solutions.

    seed  a secret number: hidden tests draw their inputs from it
    """
    lesson = exercise_folder(number)
    table = exercise_table(lesson)
    introduction = INTRODUCTION.format(title=assignment.title + f": lesson {number}", lesson=lesson.name)
    cells = [
        _graded(new_markdown_cell(introduction), "introduction", locked=True),
        _graded(new_code_cell("%load_ext shared.teaching.notebook_exercises"), "load", locked=True),
    ]
    for exercise in exercises_of(number):
        name = exercise.number.replace(".", "-")
        points = assignment.points[exercise.number]
        cells += [
            _graded(new_markdown_cell(_description(exercise, table[exercise.number])), f"task-{name}", locked=True),
            _graded(new_code_cell(_solution(exercise)), f"solution-{name}", solution=True),
            _graded(new_code_cell(_tests(exercise, seed)), f"tests-{name}", locked=True, points=points),
        ]
    for index, cell in enumerate(cells):
        cell["id"] = f"cell-{index}"  # nbformat draws one: equal assignments would not be equal bytes
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel})
    return nbformat.writes(notebook).encode() + b"\n"


def _graded(
    cell: NotebookNode, name: str, *, locked: bool = False, solution: bool = False, points: float | None = None
) -> NotebookNode:
    """Return the cell with nbgrader's metadata; one with points is a test."""
    metadata = {
        "grade": points is not None,
        "grade_id": name,
        "locked": locked,
        "schema_version": SCHEMA_VERSION,
        "solution": solution,
        "task": False,
    }
    cell["metadata"]["nbgrader"] = metadata | ({} if points is None else {"points": points})
    return cell


def _description(exercise: Exercise, info: ExerciseInfo) -> str:
    """Return what a student reads above an exercise: title, difficulty, place, and the function around it."""
    place = exercise.path.relative_to(ROOT).as_posix()
    heading = (
        f"## {exercise.number} {exercise.title}\n\nDifficulty {info.difficulty} of 5, about {info.minutes} minutes."
    )
    return f"{heading} In [`{place}`]({place}):\n\n```python\n{enclosing_code(exercise)}```\n\nHint: {info.hint}"


def enclosing_code(exercise: Exercise) -> str:
    """Return the function around an exercise with all exercises in it open, or the open exercise alone."""
    text = exercise.path.read_text(encoding="utf-8")
    opened = without_solutions(text)
    lines = opened.splitlines(keepends=True)
    marker = next(index for index, line in enumerate(lines, 1) if f"# exercise {exercise.number}: " in line)
    around = [
        node
        for node in ast.walk(ast.parse(opened))
        if isinstance(node, ast.FunctionDef) and node.lineno <= marker <= (node.end_lineno or 0)
    ]
    if not around:
        return textwrap.dedent("".join(lines[marker - 1 : marker + 2]))
    innermost = max(around, key=lambda node: node.lineno)
    first = min([innermost.lineno, *(decorator.lineno for decorator in innermost.decorator_list)])
    # The closing marker is a comment: when it is the last line of a function, the syntax tree ends before it.
    last = max(innermost.end_lineno or 0, marker + 2)
    return textwrap.dedent("".join(lines[first - 1 : last]))


def _solution(exercise: Exercise) -> str:
    code = textwrap.dedent(exercise_code(exercise.path.read_text(encoding="utf-8"), exercise.number))
    return f"%%exercise {exercise.number}\n### BEGIN SOLUTION\n{code.rstrip()}\n### END SOLUTION"


def _tests(exercise: Exercise, seed: int) -> str:
    number = exercise.number
    hidden = f'### BEGIN HIDDEN TESTS\ncheck_exercise("{number}", seed={seed})\n### END HIDDEN TESTS'
    return f'check_exercise("{number}")\n{hidden}'
