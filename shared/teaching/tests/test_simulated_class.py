"""Test that a class can be simulated for every lesson with attacks, and that wrong grades are reported."""

import inspect
import json
import re
from importlib import import_module

import pytest

from shared.teaching.tests import attacks, simulated_class


def test_every_lesson_has_an_exercise_for_the_attacks():
    for number, target in attacks.TARGETS.items():
        lesson = simulated_class.SimulatedLesson(number)
        assert lesson.path_of[target.exercise] == target.file
        name, arguments = re.fullmatch(r"(\w+)\((.*)\)", target.call).groups()
        function = getattr(import_module(target.file.removesuffix(".py").replace("/", ".")), name)
        assert list(inspect.signature(function).parameters) == arguments.split(", "), target.file
        reference = re.search(r"reference\.(\w+)\(", target.reference)[1]
        assert hasattr(import_module(f"lessons.{lesson.name}.reference"), reference), target.reference
        for name in attacks.ATTACKS:
            body = attacks.attack_body(name, target, root="/", victim="/", port="9")
            student = lesson.student(name, {target.exercise: body}, {})
            compile(student.files[target.file], name, "exec")


@pytest.mark.parametrize(
    ("passed", "failed_test", "points", "message"),
    [
        (2, "", 3, None),
        (1, "test_it", 0, "✗ instead of ✓"),
        (0, "", 0, "· instead of ✓"),
        (2, "", 4, "4 points instead of 3"),
    ],
)
def test_wrong_grade_is_reported(tmp_path, passed, failed_test, points, message):
    result = {"passed": passed, "tests": 2, "failed_test": failed_test, "message": "why"}
    record = {"points": {"9.1": 3}, "submissions": {"ann": {"points": points, "exercises": {"9.1": result}}}}
    (tmp_path / "grades.json").write_text(json.dumps(record))
    differences = simulated_class.grade_differences({"ann": {"9.1": "✓"}}, tmp_path)
    assert (differences == []) if message is None else message in "\n".join(differences)
    assert simulated_class.grade_differences({"ann": {"9.1": "✓"}, "bob": {}}, tmp_path)
