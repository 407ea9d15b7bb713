"""Classes can be written for every lesson that tricks have a target in, and a mark that is not as expected is found out."""

import json

import pytest

from shared.teaching.tests import simulated_class as classroom


def test_every_lesson_has_an_exercise_for_the_tricks():
    for number, target in classroom.hostile.TARGETS.items():
        lesson = classroom.Lesson(number)
        assert lesson.place[target.exercise] == target.file
        assert f"def {target.call.split('(')[0]}(" in lesson.solution[target.file]
        for trick in classroom.hostile.TRICKS:
            student = lesson.student(
                trick, {target.exercise: classroom.hostile.body(trick, target, root="/", victim="/", port="9")}, {}
            )
            compile(student.files[target.file], trick, "exec")


@pytest.mark.parametrize(
    ("passed", "test", "points", "said"),
    [
        (2, "", 3, None),
        (1, "test_it", 0, "✗ instead of ✓"),
        (0, "", 0, "· instead of ✓"),
        (2, "", 4, "4 points instead of 3"),
    ],
)
def test_a_wrong_mark_is_found_out(tmp_path, passed, test, points, said):
    each = {"passed": passed, "tests": 2, "test": test, "said": "why"}
    kept = {"points": {"9.1": 3}, "submissions": {"ann": {"points": points, "exercises": {"9.1": each}}}}
    (tmp_path / "grades.json").write_text(json.dumps(kept))
    found = classroom.differences({"ann": {"9.1": "✓"}}, tmp_path)
    assert (found == []) if said is None else said in "\n".join(found)
    assert classroom.differences({"ann": {"9.1": "✓"}, "bob": {}}, tmp_path)
