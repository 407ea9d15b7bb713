"""Execute a lesson's notebook and keep it with its outputs: `python -m shared.course.notebook 1`.

Outputs that change from run to run without meaning (progress lines, execution times) are removed.
"""

import argparse
import sys

import nbformat
from nbclient import NotebookClient

from shared.cli import command_line, parse_whole_number
from shared.course.lesson import load_lesson
from shared.errors import CourseError


def execute_notebook(number: int) -> None:
    """Run lesson `number`'s notebook from top to bottom and write it back.

    Raises CourseError when there is no notebook, and what a cell raises; then nothing is written.
    """
    path = load_lesson(number)[1] / "lesson.ipynb"
    if not path.exists():
        raise CourseError(f"{path} does not exist")
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": path.parent}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, path)


@command_line()
def main() -> None:
    parser = argparse.ArgumentParser(description="Execute a lesson's notebook and keep its outputs.")
    parser.add_argument("lesson", help="the lesson's number")
    execute_notebook(parse_whole_number("lesson", parser.parse_args().lesson))


if __name__ == "__main__":
    sys.exit(main())
