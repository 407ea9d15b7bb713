"""Collect a student's bundle: a lesson with its exercises open, and everything that its code needs."""

import json
import re
from collections.abc import Collection
from datetime import date
from pathlib import Path

from shared.course.exercises import Exercise, find_exercises, outside_files, without_solutions
from shared.course.lesson import ROOT, lesson_entries
from shared.errors import CourseError
from shared.teaching.course_settings import Assignment
from shared.teaching.markers import ExerciseInfo, exercise_folder, exercise_table, exercises_of, solutions
from shared.teaching.solution_leaks import find_leaks

TOP_FILES = ("requirements.txt", "constraints.txt", "pyproject.toml", "conftest.py", "LICENSE", ".gitignore")
FOLDERS = ("shared", "data", "lessons", "apps")
SUFFIXES = {".py", ".md", ".toml", ".json", ".gz", ".csv", ".png", ".svg", ".ipynb", ".txt", ".safetensors", ".npz"}
# A list of planted bugs is a list of solutions with one error each.
NEVER_INCLUDED = {"__pycache__", "cache", ".ipynb_checkpoints", "equivalent_mutants.toml"}
# Earlier lessons, apps and shared folders are included as code only; of the tools, what students run.
EXCLUDED_FROM_DEPENDENCIES = {"tests", "figures", "site", "handout", "isolation"}
TEACHING_FILES = {"__init__.py", "markers.py", "check.py", "exercise_result.py", "notebook_exercises.py"}
# Shared code that repeats what earlier exercises build → the first lesson that imports it.
BUILT_EARLIER = {"shared/stdlib/decoder.py": 5}
HANDOUT = Path(__file__).with_name("handout")


def bundle_files(number: int, assignment: Assignment, own: bool = False) -> dict[str, bytes]:
    """Return every file of a lesson's bundle, by its path in it.

    own  leave out the earlier lessons, and the files outside of them that hold their exercises: students bring theirs

    Raises CourseError when a file contains the solution of an exercise of this or a later lesson.
    """
    own_paths = earlier_work(number) if own else []
    apps = needed_apps(number)
    files = {name: (ROOT / name).read_bytes() for name in TOP_FILES}
    for top in FOLDERS:
        for path in sorted((ROOT / top).rglob("*")):
            place = path.relative_to(ROOT)
            if path.is_file() and path.suffix in SUFFIXES and _is_included(place, number, own, apps):
                files[place.as_posix()] = path.read_bytes()
    opened = [*exercises_of(number), *_later_exercises_outside(number)]
    numbers = [exercise.number for exercise in opened]
    for path in {exercise.path for exercise in opened}:
        text = without_solutions(path.read_text(encoding="utf-8"), numbers)
        files[path.relative_to(ROOT).as_posix()] = text.encode()
    files = {path: content for path, content in files.items() if path not in own_paths}
    for name, content in files.items():
        if name.endswith(".ipynb"):
            files[name] = bare_notebook(content)
    files |= handout(number, assignment, own_paths)
    if leaks := find_leaks(files, solutions(opened)):
        lines = "\n".join(f"  the solution of exercise {exercise} is in {path}" for exercise, path in leaks)
        raise CourseError(f"the bundle of lesson {number} would contain solutions, so it was not written:\n{lines}")
    return files


def _is_included(place: Path, number: int, own: bool, apps: Collection[str]) -> bool:
    """Return True for a file of the course that belongs in the bundle of lesson `number`."""
    if NEVER_INCLUDED.intersection(place.parts) or number < BUILT_EARLIER.get(place.as_posix(), 0):
        return False
    if place.parts[:2] == ("shared", "teaching"):
        return len(place.parts) == 3 and place.name in TEACHING_FILES
    if place.parts[:2] == ("data", "checkpoints"):
        trained_in = re.match(r"lesson_(\d+)_", place.parts[2])  # the judge of generated images belongs to no lesson
        return trained_in is None or int(trained_in[1]) <= number
    if place.parts[0] == "apps" and not (place.parts[1] in apps or (apps and place.name == "__init__.py")):
        return False
    if lesson := re.match(r"lesson_(\d+)_", place.parts[1]):
        if int(lesson[1]) == number:
            return True
        if int(lesson[1]) > number or own or place.suffix == ".ipynb":
            return False
    return not EXCLUDED_FROM_DEPENDENCIES.intersection(place.parts)


def _later_exercises_outside(number: int) -> list[Exercise]:
    """Return the exercises of later lessons in files outside of them: those files are in every bundle."""
    exercises = []
    for folder in sorted((ROOT / "lessons").glob("lesson_*")):
        if int(folder.name.split("_")[1]) > number and (files := outside_files(folder)):
            exercises += [exercise for exercise in find_exercises(folder) if exercise.path in files]
    return exercises


def bare_notebook(content: bytes) -> bytes:
    """Return a notebook without outputs, and with its exercises open."""
    notebook = json.loads(content)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            source = without_solutions("".join(cell["source"]))
            cell |= {"outputs": [], "execution_count": None, "source": source.splitlines(keepends=True)}
            cell["metadata"].pop("execution", None)
    return json.dumps(notebook, indent=1, ensure_ascii=False).encode() + b"\n"


def earlier_work(number: int) -> list[str]:
    """Return what students bring from earlier lessons: folders, and files outside of them with their exercises.

    These are the lessons that a lesson imports, and those that they import.
    """
    folders = [ROOT / "lessons" / name for name in earlier_lessons(number)]
    assigned = outside_files(exercise_folder(number))
    outside = [path for folder in folders for path in outside_files(folder) if path not in assigned]
    files = [path.relative_to(ROOT).as_posix() for path in outside]
    return [*(folder.relative_to(ROOT).as_posix() for folder in folders), *files]


def earlier_lessons(number: int) -> list[str]:
    """Return the folders' names of the earlier lessons that a lesson imports, and that those import."""
    lesson = exercise_folder(number).name
    names: set[str] = set()
    queue = [ROOT / "lessons" / lesson, *(ROOT / "apps" / app for app in needed_apps(number))]
    while queue:
        imported = set(re.findall(r"\blessons\.(lesson_\d+_\w+)", _code_in(queue.pop()))) - names - {lesson}
        imported = {name for name in imported if (ROOT / "lessons" / name).is_dir()}
        names |= imported
        queue += [ROOT / "lessons" / name for name in imported]
    return sorted(names)


def needed_apps(number: int) -> frozenset[str]:
    """Return the apps that a lesson's code or notebook uses, and that those use."""
    names: set[str] = set()
    queue = [exercise_folder(number)]
    while queue:
        folder = queue.pop()
        text = _code_in(folder) + "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.ipynb"))
        used = {name for name in re.findall(r"\bapps\.(\w+)", text) if (ROOT / "apps" / name).is_dir()} - names
        names |= used
        queue += [ROOT / "apps" / name for name in used]
    return frozenset(names)


def _code_in(folder: Path) -> str:
    return "".join(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py")))


def handout(number: int, assignment: Assignment, own_paths: list[str]) -> dict[str, bytes]:
    """Return the two files that only the bundle has: its README and its Makefile."""
    folder, exercises = exercise_folder(number), exercises_of(number)
    table = exercise_table(folder)
    title = next((entry.title for entry in lesson_entries() if entry.number == number), folder.name)
    outside = [path.relative_to(ROOT).as_posix() for path in outside_files(folder)]
    words = {
        "course": assignment.title,
        "title": f"lesson {number}, {title}",
        "number": str(number),
        "lesson": folder.name,
        "earlier": " ".join(own_paths),
        "dates": _dates(assignment),
        "own": "",
        "handin": f"the folder `lessons/{folder.name}` (or a zip of it)",
        "rows": "\n".join(_row(exercise, table[exercise.number], assignment) for exercise in exercises),
    }
    if own_paths:
        names = ", ".join(f"`{path}`" for path in own_paths)
        words["own"] = (
            f"This lesson uses your work on earlier lessons: copy your own {names} to the same place here.\n\n"
        )
    if outside:
        names = ", ".join(f"`{path}`" for path in (f"lessons/{folder.name}", *outside))
        words["handin"] = f"this whole folder (or a zip of it); {names} are read"
    files = {}
    for name in ("Makefile", "README.md"):
        text = (HANDOUT / name).read_text(encoding="utf-8")
        files[name] = re.sub(r"\{([a-z]+)\}", lambda match: words[match[1]], text).encode()
    return files


def _row(exercise: Exercise, info: ExerciseInfo, assignment: Assignment) -> str:
    place = exercise.path.relative_to(ROOT).as_posix()
    cells = (exercise.number, exercise.title, f"[`{exercise.path.name}`]({place})", info.difficulty, info.minutes)
    return f"| {' | '.join(map(str, cells))} | {assignment.points[exercise.number]:g} |"


def _dates(assignment: Assignment) -> str:
    dates: list[tuple[str, date | None]] = [("opens", assignment.opens), ("due", assignment.due)]
    parts = [f"{word} {day}" for word, day in dates if day]
    return (", ".join(parts)[:1].upper() + ", ".join(parts)[1:] + ".") if parts else "Without a date."
