"""Every lesson is whole: each file in its place, each exercise named in the README, each claim of its kind."""

import json
import re
from pathlib import Path

import pytest

from shared.course.exercises import find_exercises
from shared.course.lesson import lesson_entries, lesson_folder, load_lesson

BUILT = [entry.number for entry in lesson_entries() if lesson_folder(entry.number)]
FILES = ("README.md", "reference.py", "experiment/lesson.py", "lesson.ipynb", "results.json", "tests", "figures")
SECTIONS = (
    "The problem",
    "The idea",
    "Build it",
    "What you should see",
    "What is simplified",
    "Exercises",
    "Key terms",
    "Further reading",
)


def test_the_table_of_lessons_is_whole():
    assert [entry.number for entry in lesson_entries()] == list(range(26))
    assert {entry.kind for entry in lesson_entries()} == {"Learn", "Build", "Capstone"}
    assert BUILT, "no lesson is built"


def rooms(number: int) -> list[Path]:
    """The folders that a lesson teaches in: its own, or those of its parts."""
    lesson, folder = load_lesson(number)
    return [folder / part for part in lesson.parts] or [folder]


@pytest.mark.parametrize("number", BUILT)
def test_every_file_is_there(number):
    folder = lesson_folder(number)
    assert [name for name in FILES if not (folder / name).exists()] == []
    for room in rooms(number):
        assert (room / "reference.py").exists(), room
        assert (room / "model.py").exists() or (room / "model" / "__init__.py").exists(), room


@pytest.mark.parametrize("number", BUILT)
def test_the_pages_have_every_section_and_every_exercise(number):
    for folder in {lesson_folder(number), *rooms(number)}:
        text = (folder / "README.md").read_text(encoding="utf-8")
        headings = re.findall(r"^## (.+)$", text, flags=re.M)
        assert [name for name in SECTIONS if not any(heading.startswith(name) for heading in headings)] == [], folder
    for room in rooms(number):
        text = (room / "README.md").read_text(encoding="utf-8")
        # | number | title | difficulty 1–5 | minutes | …
        listed = dict(re.findall(r"^\| (\d+\.\d+) \| ([^|]+?) \| [1-5] \| \d+ \|", text, flags=re.M))
        assert listed == {exercise.number: exercise.title for exercise in find_exercises(room)}, room


@pytest.mark.parametrize("number", BUILT)
def test_claims_of_all_three_kinds_are_recorded(number):
    lesson, folder = load_lesson(number)
    assert {claim.kind for claim in lesson.claims} == {"exact", "learns", "paper"}
    recorded = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert "cpu/cpu" in recorded
    for key, result in recorded.items():
        assert len(result["seeds"]) >= 3, key
        preset, _, *data = key.split("/")
        names = [claim.name for claim in lesson.claims_of(preset, data[0] if data else lesson.data_sets[preset])]
        assert [claim["name"] for claim in result["claims"]] == names, f"{key}: run make results-{number} again"
        assert all(claim["verdict"] in ("reproduced", "not at this scale", "measured") for claim in result["claims"])


@pytest.mark.parametrize("number", BUILT)
def test_the_notebook_shows_three_figures_and_no_error(number):
    cells = json.loads((lesson_folder(number) / "lesson.ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3, (
        "the notebook is kept with its outputs"
    )
    assert not [output for output in outputs if output["output_type"] == "error"]
