"""Solve exercises in a notebook: a cell `%%exercise 3.4` writes its code between the markers of exercise 3.4.

The notebooks of `make assign-N FORMAT=nbgrader` load it with `%load_ext shared.teaching.notebook_exercises`.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from shared.atomic import write_atomically
from shared.course.exercises import BEGIN, Exercise
from shared.course.lesson import ROOT
from shared.errors import CourseError
from shared.teaching.markers import exercise_ranges, exercises_of

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

LESSON_AND_NUMBER = 2  # an exercise is named by both, as in "3.4"


def insert_code(text: str, number: str, code: str) -> str:
    """Return a file's text with `code` between the markers of an exercise, at the indentation of the markers.

    Raises SyntaxError when the result is not Python; its line number counts from the first line of `code`.
    """
    first, last = exercise_ranges(text)[number]
    lines = text.splitlines(keepends=True)
    marker = BEGIN.match(lines[first - 1])
    indentation = marker[1] if marker else ""
    lines[first:last] = [textwrap.indent(code.rstrip("\n") + "\n", indentation)]
    changed = "".join(lines)
    try:
        compile(changed, f"exercise {number}", "exec")
    except SyntaxError as error:
        if error.lineno is not None:
            error.lineno -= first
        error.end_lineno = None
        raise
    return changed


def find_exercise(number: str) -> Exercise:
    """Return an exercise by its number. Raises CourseError for a number that does not exist."""
    parts = number.split(".")
    if len(parts) != LESSON_AND_NUMBER or not all(part.isdigit() for part in parts):
        raise CourseError(f"exercise {number!r}; expected a lesson and a number, such as 3.4")
    exercises = {exercise.number: exercise for exercise in exercises_of(int(parts[0]))}
    if number not in exercises:
        raise CourseError(f"lesson {parts[0]} has no exercise {number}; choose one of {', '.join(exercises)}")
    return exercises[number]


def write_exercise(number: str, code: str) -> Path:
    """Write `code` between the markers of an exercise of this folder, and return the file.

    Raises CourseError for a number that does not exist, and SyntaxError for code that is not Python.
    """
    path = find_exercise(number).path
    write_atomically(path, insert_code(path.read_text(encoding="utf-8"), number, code).encode())
    return path


def check_exercise(number: str, seed: int | None = None) -> None:
    """Run the tests of an exercise on the files of this folder, and print the result.

    seed  the tests draw other random inputs than with None

    Raises AssertionError with the failed test when the exercise is not solved, so that nbgrader gives no points.
    """
    exercise = find_exercise(number)
    command = [sys.executable, "-m", "shared.teaching.check", str(exercise.lesson), "--exercise", number]
    if seed is not None:
        command.append(f"--seed={seed}")
    environment = os.environ | {"NO_COLOR": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"exercise {number} is not solved:\n{done.stdout}{done.stderr}")
    print(done.stdout.splitlines()[0])


def load_ipython_extension(shell: "InteractiveShell") -> None:
    """Define the cell magic `%%exercise` and the function `check_exercise`.

    Raises CourseError when the notebook runs in another folder than its own: it would change other files.
    """
    if Path.cwd().resolve() != ROOT.resolve():
        raise CourseError(
            f"the notebook runs in {Path.cwd()}, and would change {ROOT}; start Jupyter in its own folder"
        )

    def exercise(line: str, cell: str) -> None:
        path = write_exercise(line.strip(), cell)
        print(f"written to {path.relative_to(ROOT)}")

    shell.register_magic_function(exercise, magic_kind="cell")  # type: ignore[arg-type,call-arg]  # its stubs miss `self`
    shell.push({"check_exercise": check_exercise})
