"""Test what a submission is graded under: fresh inputs, few solved exercises beside it, no solution in its messages."""

from importlib import import_module

import pytest
import torch

from shared.course.lesson import ROOT
from shared.course.student import Student
from shared.teaching import run_tests as module
from shared.teaching.isolation.sandbox import Limits
from shared.teaching.markers import exercise_folder, exercises_of, lessons_with_exercises, solutions
from shared.teaching.messages import encode
from shared.teaching.run_tests import Conditions, find_conditions, fresh_inputs, run_tests, solution_submission


class Recorder(Student):
    """Answers calls, and writes down each answer."""

    def __init__(self, lesson: str):
        super().__init__(lesson)
        self.table: dict[bytes, object] = {}

    def __call__(self, where, /, **arguments):
        answer = super().__call__(where, **arguments)
        self.table[encode({"where": where, "arguments": arguments})] = answer
        return answer


class Table:
    """A student who looks up the answers to the visible tests."""

    def __init__(self, table: dict[bytes, object]):
        self.table = table

    def __call__(self, where, /, **arguments):
        return self.table[encode({"where": where, "arguments": arguments})]


def solved(lesson: int, student: object, seed: int | None, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the exercises that a student solves who runs in this process."""
    monkeypatch.setattr(module.GradingPlugin, "_process_for", lambda plugin, number: student)
    numbers = [each.number for each in exercises_of(lesson)]
    conditions = Conditions(Limits(), dict.fromkeys(numbers, frozenset()), seed)
    results = run_tests(lesson, solution_submission(lesson), conditions)
    return {number for number, result in results.items() if result.solved}


@pytest.mark.parametrize("lesson", lessons_with_exercises())
def test_table_of_visible_answers_earns_nothing(lesson, monkeypatch):
    """Give a new exercise at least one test whose inputs are drawn (`torch.rand`, `torch.randint`)."""
    recorder = Recorder(exercise_folder(lesson).name)
    assert solved(lesson, recorder, None, monkeypatch) == {each.number for each in exercises_of(lesson)}
    fixed = solved(lesson, Table(recorder.table), 7, monkeypatch)
    assert not fixed, f"the tests of {', '.join(sorted(fixed))} have the same inputs at grading as those of students"


def test_table_is_complete_and_the_solution_passes_with_fresh_inputs(monkeypatch):
    everything = {each.number for each in exercises_of(1)}
    recorder = Recorder(exercise_folder(1).name)
    assert solved(1, recorder, None, monkeypatch) == everything
    assert solved(1, Table(recorder.table), None, monkeypatch) == everything
    assert solved(1, recorder, 7, monkeypatch) == everything


def test_exercise_with_fixed_inputs_is_noticed(monkeypatch, tmp_path):
    fixed = tmp_path / "test_exercises_fixed.py"
    fixed.write_text(
        "import pytest, torch\n@pytest.fixture\ndef student(): pass\n"
        "@pytest.mark.exercise('1.3')\ndef test_shape(student):\n"
        "    student('model.patches:patchify', images=torch.ones(1, 1, 4, 4), patch_size=2)\n"
    )
    monkeypatch.setattr(module, "exercise_tests", lambda folder: [fixed])
    recorder = Recorder(exercise_folder(1).name)
    assert solved(1, recorder, None, monkeypatch) == {"1.3"}
    assert solved(1, Table(recorder.table), 7, monkeypatch) == {"1.3"}


def test_inputs_depend_on_the_seed_and_only_on_it():
    def drawn(seed):
        with fresh_inputs(seed):
            torch.manual_seed(0)
            return torch.randn(4).tolist()

    assert drawn(1) == drawn(1) != drawn(2) and drawn(None) != drawn(1)
    assert torch.manual_seed.__module__ == "torch.random"


def test_only_needed_exercises_are_solved(monkeypatch):
    """The solution says which exercise it misses; one that fails for another reason needs all."""
    needs = {"1.1": set(), "1.2": {"1.1"}, "1.3": {"1.2"}, "1.4": set()}
    numbers = [each.number for each in exercises_of(1)]

    def run(lesson, submission, conditions, only):
        results = {}
        for number in numbers:
            missing = needs.get(number, set()) - conditions.required[number]
            message = f"NotImplementedError: exercise {min(missing)}: title" if missing else ""
            if number == "1.4" and len(conditions.required["1.4"]) < len(numbers):
                message = "ValueError: exercise 1.4: itself"
            results[number] = module.ExerciseResult(0 if message else 1, 1, "a test" if message else "", message)
        return results

    monkeypatch.setattr(module, "run_tests", run)
    required = find_conditions(1, Limits(), 3).required
    assert required["1.1"] == frozenset() and required["1.2"] == {"1.1"} and required["1.3"] == {"1.2"}
    assert required["1.4"] == set(numbers)


def message_of(error: Exception) -> str:
    with pytest.raises(type(error)) as info:
        raise error
    return module.shown_message(info, module.solution_lines(1))


def test_messages_repeat_no_solution_and_are_short():
    for code in solutions(exercises_of(1)).values():
        for text in (code, code.replace("\n", " "), f"look: {code.strip()}"):
            if len("".join(code.split())) >= 40:
                assert message_of(RuntimeError(text)) == f"RuntimeError: {module.HIDDEN_MESSAGE}"
                assert message_of(AssertionError(text)) == f"AssertionError: {module.HIDDEN_MESSAGE}"
    assert message_of(ValueError("x" * 1000)) == "ValueError: " + "x" * (module.ERROR_LENGTH - 12)
    assert message_of(RuntimeError("mat1 and mat2 shapes cannot be multiplied")).endswith("multiplied")


def test_solved_modules_are_in_the_copy_without_source(tmp_path, monkeypatch):
    from shared.teaching.grading_copy import write_grading_copy

    exercises = exercises_of(1)
    own = next(each for each in exercises if each.number == "1.3")
    other = next(each for each in exercises if each.path != own.path)
    text = own.path.read_text(encoding="utf-8")
    write_grading_copy(tmp_path, own, text, exercises, frozenset({other.number}))
    place = tmp_path / other.path.relative_to(ROOT)
    assert not place.exists() and place.with_suffix(".pyc").exists()
    code = "".join(solutions([other])[other.number].split())
    assert all(code not in "".join(path.read_text().split()) for path in tmp_path.rglob("*.py"))
    monkeypatch.syspath_prepend(str(place.parent))
    assert import_module(place.stem).__file__.endswith(".pyc")


def test_next_seed_is_tried_when_the_solution_fails(monkeypatch):
    good = {9}

    def conditions(lesson, limits, seed):
        if seed not in good:
            raise module.CourseError("fails")
        return Conditions(limits, {}, seed)

    monkeypatch.setattr(module, "conditions_with", conditions)
    assert find_conditions(1, Limits(), 7).seed == 9
    good = {None}
    assert find_conditions(1, Limits(), 7).seed is None
    good = set()
    with pytest.raises(module.CourseError):
        find_conditions(1, Limits(), 7)
