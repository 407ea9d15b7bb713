"""A learner opens exercises, is helped, loses nothing, and sees how far the course has come."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from shared.course.lesson import ROOT, LessonEntry
from shared.errors import CourseError
from shared.teaching import check, markers, progress
from shared.teaching import self_study as study
from shared.teaching.progress import Standing, standing, summary

TITLES = ("double a number", "add numbers")
CODE = "".join(
    f"def f{n}(x):\n    # exercise 1.{n}: {title}\n    return x * {n}\n    # end exercise\n\n\n"
    for n, title in enumerate(TITLES, 1)
)
PAGE = """| 1.1 | double a number | 1 | 5 | here |
| 1.2 | add numbers | 2 | 15 | there |

<details><summary>Hints</summary>

* 1.1: what is twice
  as much?

</details>
"""


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of one lesson with two exercises in one file."""
    folder = tmp_path / "lessons" / "lesson_01_small"
    (folder / "tests").mkdir(parents=True)
    (folder / "tests" / "test_exercises.py").write_text("")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "lesson.py").write_text("")
    (folder / "code.py").write_text(CODE)
    (folder / "README.md").write_text(PAGE)
    for module in (markers, study, check, progress):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path


def code(course):
    return (course / "lessons/lesson_01_small/code.py").read_text()


def test_start_opens_and_solution_shows_what_was_there(course):
    opened, left = study.start(1, course / ".solutions")
    assert [exercise.number for exercise in opened] == ["1.1", "1.2"] and not left
    assert code(course).count("raise NotImplementedError") == 2 and "return" not in code(course)
    assert study.solution("1.2", course / ".solutions") == "    return x * 2\n"


def test_a_second_start_keeps_what_the_learner_wrote(course):
    study.start(1, course / ".solutions")
    path = course / "lessons/lesson_01_small/code.py"
    own = code(course).replace('raise NotImplementedError("exercise 1.1: double a number")', "return x + x")
    path.write_text(own)
    opened, left = study.start(1, course / ".solutions")
    assert code(course) == own and not opened and len(left) == 2
    assert study.solution("1.1", course / ".solutions") == "    return x * 1\n"


def test_hints_come_from_the_page(course):
    assert "what is twice as much?" in study.hint("1.1") and "5 minutes" in study.hint("1.1")
    assert "no hint" in study.hint("1.2")
    for wrong in ("1.7", "x"):
        with pytest.raises(CourseError):
            study.hint(wrong)


def solve(course, *names):
    """As a check would record it."""
    texts = {name: markers.part(code(course), name) for name in names}
    path = course / "runs/lesson_01_small" / check.RECORD
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}))


def run(course, preset, *verdicts):
    path = course / "runs/lesson_01_small" / preset / "claims.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([{"verdict": verdict} for verdict in verdicts]))


ENTRY = LessonEntry(1, "Small", "Learn", 90)


def test_a_lesson_is_done_when_claims_and_exercises_are(course):
    assert standing(ENTRY, course).next_step == "make lesson-1"
    run(course, "smoke", "reproduced", "measured", "measured")
    assert standing(ENTRY, course).of_claims == 0
    run(course, "cpu", "reproduced", "not at this scale", "FAILED")
    assert (standing(ENTRY, course).claims, standing(ENTRY, course).next_step) == (2, "make lesson-1")
    run(course, "full", "reproduced", "reproduced", "reproduced")
    solve(course, "1.1", "1.2")
    now = standing(ENTRY, course)
    assert (now.claims, now.exercises, now.done, now.next_step) == (3, 0, False, "make start-1"), (
        "the solution is no work"
    )
    study.start(1, course / ".solutions")
    assert (standing(ENTRY, course).exercises, standing(ENTRY, course).next_step) == (0, "make check-1")
    path = course / "lessons/lesson_01_small/code.py"
    path.write_text(code(course).replace("raise NotImplementedError(", "return (x, "))
    solve(course, "1.1")
    assert standing(ENTRY, course).exercises == 1 and not standing(ENTRY, course).done
    solve(course, "1.1", "1.2")
    assert standing(ENTRY, course).done
    path.write_text(code(course).replace("return (x, ", "return (2 * x, "))
    assert standing(ENTRY, course).exercises == 0, "what has changed since was not checked"


def test_a_lesson_that_is_not_built_has_not_begun(course):
    assert not standing(replace(ENTRY, number=2), course).built


def test_the_last_line_counts_lessons_and_hours():
    def at(number, done, built=True):
        return Standing(LessonEntry(number, "", "Learn", 120), built, 3 * done, 3 * done, 2 * done, 2, done)

    assert summary([at(0, True), at(1, True), at(2, False), at(3, False, built=False)]) == (
        "1 / 3 complete, about 4 hours left; next: make lesson-2"
    )
    assert summary([at(0, False), at(1, True)]) == "1 / 1 complete, about 2 hours left; next: make lesson-0"
    assert summary([at(0, True), at(1, True)]) == "1 / 1 complete, about 0 hours left"


def test_the_commands_answer(tmp_path):
    make = shutil.which("make")
    for target, said in (
        ("hint-1.3", "1.1 in one line"),
        ("solution-1.3", "rearrange("),
        ("progress", "complete, about"),
    ):
        done = subprocess.run(
            [make, "-o", "setup", target, f"RUN={sys.executable}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert said in done.stdout, done.stdout + done.stderr
