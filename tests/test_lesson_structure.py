"""Every lesson is complete: its files, its README's sections, its exercises, its recorded claims, its notebook."""

import json
import re
from pathlib import Path

import pytest

from shared.course import claims
from shared.course.checkpoint import stale_version
from shared.course.exercises import FILE_LIST, exercises_in_file, find_exercises, outside_files
from shared.course.lesson import ROOT, lesson_entries, lesson_folder, load_lesson
from shared.course.recorded_results import recorded_verdicts

BUILT = [entry for entry in lesson_entries() if lesson_folder(entry.number)]
NUMBERS = [entry.number for entry in BUILT]
# A lesson is marked `measured = false` in lessons.toml while it is being written (make new-lesson does so).
MEASURED = [
    pytest.param(
        entry.number,
        marks=pytest.mark.skipif(
            not entry.measured, reason=f"lesson {entry.number} is marked measured = false in lessons.toml"
        ),
    )
    for entry in BUILT
]
FILES = ("README.md", "reference.py", "experiment/lesson.py", "lesson.ipynb", "tests")
EXPERIMENT = ("arms.py", "claims.py", "data.py", "train.py", "evaluate.py", "figures.py")
EXPERIMENT_OF_A_PART = ("arms.py", "claims.py", "figures.py")
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


def test_the_table_of_lessons_is_complete():
    assert [entry.number for entry in lesson_entries()] == list(range(26))
    assert {entry.kind for entry in lesson_entries()} == {"Learn", "Build", "Capstone"}
    assert BUILT, "no lesson is built"


def test_only_lessons_without_results_are_marked_as_not_measured():
    marked = {entry.number for entry in BUILT if not entry.measured}
    assert marked == {number for number in NUMBERS if not (lesson_folder(number) / "results.json").exists()}


def part_folders(number: int) -> list[Path]:
    """Return the folders with a lesson's pages: those of its parts; its own for a part without a folder."""
    lesson, folder = load_lesson(number)
    return [folder / part if (folder / part).is_dir() else folder for part in lesson.parts] or [folder]


def exercises_on_page(part: Path, parts: list[Path]) -> dict[str, str]:
    """Return the exercises, number → title, that the page of a part must list: those of no other part in its folder."""
    nested = [other for other in parts if other != part and other.is_relative_to(part)]
    elsewhere = {exercise.number for other in nested for exercise in find_exercises(other)}
    return {exercise.number: exercise.title for exercise in find_exercises(part) if exercise.number not in elsewhere}


@pytest.mark.parametrize("number", NUMBERS)
def test_every_file_exists(number):
    folder = lesson_folder(number)
    assert [name for name in FILES if not (folder / name).exists()] == []
    for part in part_folders(number):
        if (part / FILE_LIST).exists():
            continue  # the code of this part is in the shared files that it names
        assert (part / "reference.py").exists(), part
        assert (part / "model.py").exists() or (part / "model" / "__init__.py").exists(), part
        names = EXPERIMENT if part == folder else EXPERIMENT_OF_A_PART
        assert [name for name in names if not (part / "experiment" / name).exists()] == [], part


@pytest.mark.parametrize("number", NUMBERS)
def test_the_pages_have_every_section_and_every_exercise(number):
    for folder in {lesson_folder(number), *part_folders(number)}:
        text = (folder / "README.md").read_text(encoding="utf-8")
        headings = re.findall(r"^## (.+)$", text, flags=re.M)
        assert [name for name in SECTIONS if not any(heading.startswith(name) for heading in headings)] == [], folder
    for part in part_folders(number):
        text = (part / "README.md").read_text(encoding="utf-8")
        # | number | title | difficulty 1–5 | minutes | …
        listed = dict(re.findall(r"^\| (\d+\.\d+) \| ([^|]+?) \| [1-5] \| \d+ \|", text, flags=re.M))
        assert listed == exercises_on_page(part, part_folders(number)), part


def test_every_exercise_outside_the_lessons_is_named_by_its_lesson():
    for top in ("shared", "data", "apps"):
        for path in (ROOT / top).rglob("*.py"):
            # Tests and documentation have examples of markers in strings.
            if "tests" in path.parts or path == ROOT / "shared" / "course" / "exercises.py":
                continue
            for exercise in exercises_in_file(path):
                folders = (ROOT / "lessons").glob(f"lesson_{exercise.lesson:02d}_*")  # also one without an experiment
                named = any(path in outside_files(folder) for folder in folders)
                assert named, f"{path}: no {FILE_LIST} of lesson {exercise.lesson}"


@pytest.mark.parametrize("number", MEASURED)
def test_claims_of_all_three_kinds_are_recorded(number):
    lesson, folder = load_lesson(number)
    assert (folder / "figures").is_dir()
    assert {claim.kind for claim in lesson.claims} == {"exact", "learns", "paper"}
    recorded = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert "cpu/cpu" in recorded
    for key, result in recorded.items():
        assert len(result["seeds"]) >= 3, key
        preset, _, *data = key.split("/")
        names = [claim.name for claim in lesson.claims_of(preset, data[0] if data else lesson.data_sets[preset])]
        measured = [claim["name"] for claim in result["claims"]]
        stale = stale_version(number, None, preset)
        if stale:  # claims that were added since are measured with the rest
            names = [name for name in names if name in measured]
        assert measured == names, f"{key}: run make results-{number} again"
        if stale:  # the expected verdicts are those of the present version
            continue
        for verdict in recorded_verdicts(lesson, key, result):
            assert verdict.label in (verdict.claim.expected, claims.MEASURED), (key, verdict.claim.name, verdict.label)


@pytest.mark.parametrize("number", NUMBERS)
def test_claims_stand_alone(number):
    lesson, _ = load_lesson(number)
    for claim in lesson.claims:
        assert not claim.sentence.startswith(("…", "...", "and ", "It ")), claim.name
        assert "with less without" not in claim.sentence, claim.name
        assert len(claim.sentence.split()) <= 25, f"{claim.name}: {len(claim.sentence.split())} words"
        assert claim.kind != "paper" or "arXiv:" in claim.source or claim.source, f"{claim.name} cites no publication"


def notebook_outputs(number: int) -> list[dict]:
    cells = json.loads((lesson_folder(number) / "lesson.ipynb").read_text(encoding="utf-8"))["cells"]
    return [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_notebook_has_no_error(number):
    assert not [output for output in notebook_outputs(number) if output["output_type"] == "error"]


@pytest.mark.parametrize("number", MEASURED)
def test_the_notebook_shows_three_figures(number):
    figures = sum("image/png" in output.get("data", {}) for output in notebook_outputs(number))
    assert figures >= 3, "the notebook is committed with its outputs"
