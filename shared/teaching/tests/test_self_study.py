"""Test that exercises can be opened without losing work, with hints and solutions, and that progress is shown."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from shared.course.lesson import ROOT, LessonEntry
from shared.errors import CourseError
from shared.teaching import check, markers, progress, self_study
from shared.teaching.progress import LessonProgress, lesson_progress, summary

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
    for module in (markers, self_study, check, progress):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path


def code(course):
    return (course / "lessons/lesson_01_small/code.py").read_text()


def test_start_opens_exercises_and_solution_shows_them(course):
    opened, left_alone = self_study.start(1, course / ".solutions")
    assert [exercise.number for exercise in opened] == ["1.1", "1.2"] and not left_alone
    assert code(course).count("raise NotImplementedError") == 2 and "return" not in code(course)
    assert self_study.solution("1.2", course / ".solutions") == "    return x * 2\n"


def test_second_start_keeps_the_learners_code(course):
    self_study.start(1, course / ".solutions")
    path = course / "lessons/lesson_01_small/code.py"
    written = code(course).replace('raise NotImplementedError("exercise 1.1: double a number")', "return x + x")
    path.write_text(written)
    opened, left_alone = self_study.start(1, course / ".solutions")
    assert code(course) == written and not opened and len(left_alone) == 2
    assert self_study.solution("1.1", course / ".solutions") == "    return x * 1\n"


def test_hints_are_read_from_the_page(course):
    assert "what is twice as much?" in self_study.hint("1.1") and "5 minutes" in self_study.hint("1.1")
    assert "no hint" in self_study.hint("1.2")
    for wrong in ("1.7", "x"):
        with pytest.raises(CourseError):
            self_study.hint(wrong)


def solve(course, *names):
    """As a check would record it."""
    texts = {name: markers.exercise_code(code(course), name) for name in names}
    path = course / "runs/lesson_01_small" / check.RECORD
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}))


def run(course, preset, *verdicts):
    path = course / "runs/lesson_01_small" / preset / "claims.json"
    path.parent.mkdir(parents=True)
    unexpected = ("misses the threshold", "not reproduced")
    claims = [{"verdict": verdict, "as_expected": verdict not in unexpected} for verdict in verdicts]
    path.write_text(json.dumps(claims))


ENTRY = LessonEntry(1, "Small", "Learn", 90)


def test_lesson_is_complete_with_its_claims_and_exercises(course):
    assert lesson_progress(ENTRY, course).next_command == "make lesson-1"
    run(course, "smoke", "reproduced", "measured", "measured")
    assert lesson_progress(ENTRY, course).judged_claims == 0
    run(course, "cpu", "within", "outside", "misses the threshold")
    assert (lesson_progress(ENTRY, course).claims, lesson_progress(ENTRY, course).next_command) == (2, "make lesson-1")
    run(course, "full", "reproduced", "reproduced", "reproduced")
    solve(course, "1.1", "1.2")
    now = lesson_progress(ENTRY, course)
    assert (now.claims, now.solved_exercises, now.complete, now.next_command) == (3, 0, False, "make start-1"), (
        "the original solution does not count as solved"
    )
    self_study.start(1, course / ".solutions")
    assert (lesson_progress(ENTRY, course).solved_exercises, lesson_progress(ENTRY, course).next_command) == (
        0,
        "make check-1",
    )
    assert lesson_progress(ENTRY, course).minutes_left == 90 + 5 + 15
    path = course / "lessons/lesson_01_small/code.py"
    path.write_text(code(course).replace("raise NotImplementedError(", "return (x, "))
    solve(course, "1.1")
    now = lesson_progress(ENTRY, course)
    assert (now.solved_exercises, now.complete, now.minutes_left) == (1, False, 90 + 15)
    solve(course, "1.1", "1.2")
    assert lesson_progress(ENTRY, course).complete and lesson_progress(ENTRY, course).minutes_left == 0
    path.write_text(code(course).replace("return (x, ", "return (2 * x, "))
    assert lesson_progress(ENTRY, course).solved_exercises == 0, "code that has changed since was not checked"


def test_lesson_that_is_not_built(course):
    assert not lesson_progress(replace(ENTRY, number=2), course).built


def test_summary_counts_lessons_and_hours():
    def progress_in(number, done, built=True):
        return LessonProgress(LessonEntry(number, "", "Learn", 120), built, 3 * done, 3 * done, 2 * done, 2, done)

    assert summary(
        [progress_in(0, True), progress_in(1, True), progress_in(2, False), progress_in(3, False, built=False)]
    ) == ("1 / 3 complete, about 4 hours left; next: make lesson-2")
    assert (
        summary([progress_in(0, False), progress_in(1, True)])
        == "1 / 1 complete, about 2 hours left; next: make lesson-0"
    )
    assert summary([progress_in(0, True), progress_in(1, True)]) == "1 / 1 complete, about 0 hours left"


def test_commands_run(tmp_path):
    make = shutil.which("make")
    for target, output in (
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
        assert output in done.stdout, done.stdout + done.stderr


def test_exercises_outside_the_lesson_are_opened_and_only_those_of_the_lesson(course):
    shared = course / "shared" / "tools.py"
    shared.parent.mkdir()
    later = "def g(x):\n    # exercise 2.1: negate\n    return -x\n    # end exercise\n"
    shared.write_text(CODE.replace("exercise 1.", "exercise 1.1").split("\n\n\n")[0] + "\n\n\n" + later)
    (course / "lessons/lesson_01_small/exercises.toml").write_text('files = ["shared/tools.py"]\n')
    opened, _ = self_study.start(1, course / ".solutions")
    assert [exercise.number for exercise in opened] == ["1.1", "1.2", "1.11"]
    assert 'raise NotImplementedError("exercise 1.11' in shared.read_text() and shared.read_text().endswith(later)
    assert self_study.solution("1.11", course / ".solutions") == "    return x * 1\n"
