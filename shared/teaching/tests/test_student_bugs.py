"""Test that the exercises' tests catch the errors that students make."""

import json
import subprocess
import sys

import pytest

from shared.course.lesson import ROOT
from shared.errors import CourseError
from shared.teaching.markers import exercises_of
from shared.teaching.mutation.run_mutants import Outcome
from shared.teaching.mutation.student_bugs import lessons_with_bugs, run_student_bugs, student_bugs

LESSONS = lessons_with_bugs()


def test_every_exercise_has_a_bug_and_no_bug_is_listed_twice():
    assert set(range(10)) <= set(LESSONS)
    for lesson in LESSONS:
        bugs = student_bugs(lesson)
        assert {exercise.number for exercise, _ in bugs} == {exercise.number for exercise in exercises_of(lesson)}
        assert len({mutant.text for _, mutant in bugs}) == len(bugs) >= 10


def test_every_bug_is_caught(tmp_path):
    """In one process, without a new interpreter per bug; a survivor is printed with its exercise and its error."""
    summary = tmp_path / "summary.json"
    command = [sys.executable, "-m", "shared.teaching.mutation", "--student-bugs", "--json", str(summary)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert summary.exists(), done.stdout + done.stderr
    results = json.loads(summary.read_text())
    assert sorted(map(int, results)) == LESSONS
    assert all(each["caught"] == each["planted"] for each in results.values()), done.stdout


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('exercise = "1.3"\nerror = "x"\nold = "b (h w)"', "expected an exercise of lesson 1"),
        ('exercise = "1.9"\nerror = "x"\ncode = "return 1"', "expected an exercise of lesson 1"),
        ('exercise = "1.3"\nerror = "x"\nold = "patch"\nnew = ""', "occurs [2-9] times in the solution"),
        ('exercise = "1.3"\nerror = "x"\nold = "absent"\nnew = ""', "occurs 0 times in the solution"),
        ('exercise = "1.3"\nerror = "x"\ncode = "return ("', "Python does not parse"),
        ('exercise = "1.3"\nerror = "x"\nold = "# Row-major"\nnew = "# Row"', "does the same as the solution"),
    ],
)
def test_entries_are_checked(tmp_path, entry, message):
    (tmp_path / "lesson_01.toml").write_text(f"[[bug]]\n{entry}\n")
    with pytest.raises(CourseError, match=message):
        student_bugs(1, tmp_path)


def test_a_bug_that_fails_by_itself_is_refused(monkeypatch):
    def run(lessons, bugs, report, check_solutions):
        return {1: [Outcome(exercise, mutant, "test", "NameError: name 'np'") for exercise, mutant in bugs]}

    monkeypatch.setattr("shared.teaching.mutation.student_bugs.run_planted", run)
    with pytest.raises(CourseError, match="this code fails by itself"):
        run_student_bugs([1])
