"""Write the skeleton of a lesson, complete and with passing tests (`make new-lesson N=6 NAME=any_resolution`).

python -m shared.course.new_lesson.generate 6 any_resolution

The skeleton is a small working lesson, a linear probe on the toy world, from the files in `template/`. The lesson is
marked `measured = false` in lessons.toml until it has results.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jupytext

from shared.cli import command_line, parse_whole_number
from shared.course.lesson import ROOT, LessonEntry, lesson_entries
from shared.course.readme import write_readmes
from shared.errors import CourseError

TEMPLATE = Path(__file__).parent / "template"
NOTEBOOK = "lesson.py"
"""The template of lesson.ipynb, a script in jupytext's percent format."""


def new_lesson(number: int, name: str) -> Path:
    """Write lesson `number` to lessons/lesson_NN_name and return its folder.

    Raises CourseError when the number is not in lessons.toml, the lesson exists, or the name is not a Python name.
    """
    entry = _check_request(number, name)
    folder = ROOT / "lessons" / f"lesson_{number:02d}_{name}"
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as temporary:
        draft = Path(temporary) / folder.name
        fill_template(draft, entry)
        subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", draft], cwd=ROOT, check=True)
        shutil.move(draft, folder)
    mark_not_measured(ROOT / "lessons" / "lessons.toml", number)
    write_readmes()
    return folder


def _check_request(number: int, name: str) -> LessonEntry:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise CourseError(f"{name!r} is not a lesson's name; use lower-case letters, digits and _, as any_resolution")
    entries = {entry.number: entry for entry in lesson_entries()}
    if number not in entries:
        raise CourseError(f"lesson {number} is not in lessons/lessons.toml; add its number, title, kind and minutes")
    if existing := sorted((ROOT / "lessons").glob(f"lesson_{number:02d}_*")):
        raise CourseError(f"lesson {number} exists already: {existing[0].relative_to(ROOT)}")
    return entries[number]


def fill_template(folder: Path, entry: LessonEntry) -> None:
    """Copy the template's files into a new folder, with the lesson's name, number and title filled in."""
    values = {
        "__PACKAGE__": folder.name,
        "__NUMBER__": str(entry.number),
        "__TITLE__": entry.title,
        "__KIND__": entry.kind,
        "__MINUTES__": str(entry.minutes),
    }
    for source in sorted(TEMPLATE.rglob("*.txt")):
        text = source.read_text(encoding="utf-8")
        for placeholder, value in values.items():
            text = text.replace(placeholder, value)
        path = folder / source.relative_to(TEMPLATE).with_suffix("")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name == NOTEBOOK and path.parent == folder:
            write_notebook(text, path.with_suffix(".ipynb"))
        else:
            path.write_text(text, encoding="utf-8")


def write_notebook(script: str, path: Path) -> None:
    """Write a script in percent format as a notebook without outputs."""
    notebook = jupytext.reads(script, fmt="py:percent")
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    jupytext.write(notebook, path)


def mark_not_measured(path: Path, number: int) -> None:
    """Add `measured = false` to a lesson's entry in lessons.toml."""
    text = path.read_text(encoding="utf-8")
    entry = re.compile(rf"^number = {number}\n(?:(?!\[\[).+\n)*", re.M)
    path.write_text(entry.sub(lambda match: f"{match[0]}measured = false\n", text, count=1), encoding="utf-8")


@command_line()
def main() -> None:
    parser = argparse.ArgumentParser(description="Write the skeleton of a new lesson.")
    parser.add_argument("number", help="the lesson's number in lessons.toml")
    parser.add_argument("name", help="the end of the folder's name, such as any_resolution")
    options = parser.parse_args()
    folder = new_lesson(parse_whole_number("lesson", options.number), options.name)
    number = folder.name.split("_")[1].lstrip("0")
    print(f"{folder.relative_to(ROOT)}: replace its content step by step; make test-{number}, make lesson-{number}")


if __name__ == "__main__":
    sys.exit(main())
