"""What a student is given: a lesson with its exercises left open, and everything it stands on."""

import json
import re
from pathlib import Path

from shared.course.exercises import without_solutions
from shared.course.lesson import ROOT, lesson_entries
from shared.errors import CourseError
from shared.teaching.course_settings import Assignment
from shared.teaching.markers import exercise_folder, exercises_of, listed, solutions
from shared.teaching.solution_leaks import leaks

TOP = ("requirements.txt", "constraints.txt", "pyproject.toml", "conftest.py", "LICENSE", ".gitignore")
SUFFIXES = {".py", ".md", ".toml", ".json", ".gz", ".csv", ".png", ".ipynb", ".txt", ".safetensors", ".npz"}
# What lists planted bugs lists solutions with one thing wrong.
NEVER = {"__pycache__", "cache", ".ipynb_checkpoints", "equivalent_mutants.toml"}
# Of earlier lessons the code alone is needed, of the machinery what a student runs.
NOT_OF_WHAT_IT_STANDS_ON = {"tests", "figures", "site", "handout", "isolation"}
TEACHING = {"__init__.py", "markers.py", "check.py"}
HANDOUT = Path(__file__).with_name("handout")


def bundle_files(number: int, given: Assignment, own: bool = False) -> dict[str, bytes]:
    """Every file of the bundle of a lesson, by its path in it; with `own`, without the earlier lessons.

    Raises CourseError when any of them holds the solution of an exercise.
    """
    folder, exercises = exercise_folder(number), exercises_of(number)
    files = {name: (ROOT / name).read_bytes() for name in TOP}
    for top in ("shared", "data", "lessons"):
        for path in sorted((ROOT / top).rglob("*")):
            if path.is_file() and path.suffix in SUFFIXES and _wanted(path.relative_to(ROOT), number, own):
                files[path.relative_to(ROOT).as_posix()] = path.read_bytes()
    for path in {exercise.path for exercise in exercises}:
        files[path.relative_to(ROOT).as_posix()] = without_solutions(path.read_text(encoding="utf-8")).encode()
    for path, content in files.items():
        if path.endswith(".ipynb"):
            files[path] = bare_notebook(content)
    files |= handout(number, given, folder, earlier(number) if own else [])
    if found := leaks(files, solutions(exercises)):
        where = "\n".join(f"  the solution of exercise {exercise} stands in {path}" for exercise, path in found)
        raise CourseError(f"the bundle of lesson {number} would give solutions away, so it was not written:\n{where}")
    return files


def _wanted(place: Path, number: int, own: bool) -> bool:
    if NEVER.intersection(place.parts):
        return False
    if place.parts[:2] == ("shared", "teaching"):
        return len(place.parts) == 3 and place.name in TEACHING
    if place.parts[:2] == ("data", "checkpoints"):
        return int(place.parts[2].split("_")[1]) <= number
    if lesson := re.match(r"lesson_(\d+)_", place.parts[1]):
        if int(lesson[1]) == number:
            return True
        if int(lesson[1]) > number or own or place.suffix == ".ipynb":
            return False
    return not NOT_OF_WHAT_IT_STANDS_ON.intersection(place.parts)


def bare_notebook(content: bytes) -> bytes:
    """A notebook without what its cells have shown, and with its exercises left open."""
    notebook = json.loads(content)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            source = without_solutions("".join(cell["source"]))
            cell |= {"outputs": [], "execution_count": None, "source": source.splitlines(keepends=True)}
            cell["metadata"].pop("execution", None)
    return json.dumps(notebook, indent=1, ensure_ascii=False).encode() + b"\n"


def earlier(number: int) -> list[str]:
    """The folders of the earlier lessons that a lesson imports, and that those import."""
    found: set[str] = set()
    waiting = [exercise_folder(number).name]
    while waiting:
        lesson = waiting.pop()
        text = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "lessons" / lesson).rglob("*.py")))
        named = set(re.findall(r"\blessons\.(lesson_\d+_\w+)", text)) - found - {exercise_folder(number).name}
        found |= named
        waiting += named
    return sorted(name for name in found if (ROOT / "lessons" / name).is_dir())


def handout(number: int, given: Assignment, folder: Path, own: list[str]) -> dict[str, bytes]:
    """The two files that are the bundle's own: what to do, and the commands to do it with."""
    pages = listed(folder)
    title = next((entry.title for entry in lesson_entries() if entry.number == number), folder.name)
    words = {
        "course": given.title,
        "title": f"lesson {number}, {title}",
        "number": str(number),
        "lesson": folder.name,
        "earlier": " ".join(own),
        "dates": _dates(given),
        "own": "",
        "rows": "\n".join(_row(exercise, pages[exercise.number], given) for exercise in exercises_of(number)),
    }
    if own:
        names = ", ".join(f"`lessons/{name}`" for name in own)
        words["own"] = f"This lesson stands on what you have written before: copy your own {names} into `lessons/`.\n\n"
    files = {}
    for name in ("Makefile", "README.md"):
        text = (HANDOUT / name).read_text(encoding="utf-8")
        files[name] = re.sub(r"\{([a-z]+)\}", lambda word: words[word[1]], text).encode()
    return files


def _row(exercise, page: dict, given: Assignment) -> str:
    place = exercise.path.relative_to(ROOT).as_posix()
    cells = (exercise.number, exercise.title, f"[`{exercise.path.name}`]({place})", page["difficulty"], page["minutes"])
    return f"| {' | '.join(map(str, cells))} | {given.points[exercise.number]:g} |"


def _dates(given: Assignment) -> str:
    parts = [f"{word} {day}" for word, day in (("Opens", given.opens), ("due", given.due)) if day]
    return (", ".join(parts)[:1].upper() + ", ".join(parts)[1:] + ".") if parts else "Without a date."
