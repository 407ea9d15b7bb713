"""Impossible requests end with one line, an exit status and no traceback. Exercises are found and taken out."""

import sys

import pytest
import torch

from shared.course import results, run
from shared.course.exercises import find_exercises, without_solutions
from shared.errors import CourseError


def call(monkeypatch, capsys, *arguments, command=run.run_and_check):
    """Return the exit status and the error line of a command."""
    monkeypatch.setattr(sys, "argv", ["run", *arguments])
    status = run.from_command_line("run a lesson", command)
    return status, capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["99"], "lesson 99 is not in this course; built so far: "),
        (["25"], "lesson 25 is planned, not built yet"),
        (["one"], "lesson 'one' is not a whole number"),
        (["1", "--seeds", "x"], "seed 'x' is not a whole number"),
        (["1", "--seeds=-1"], "seed '-1' is too small; the least is 0"),
        (["1", "--seeds", "-1"], "seed '-1' is too small; the least is 0"),
        (["1", "--seeds=0 0"], "seed 0 is given twice"),
        (["1", "--seeds", "0", "1", "0"], "seed 0 is given twice"),
        (["1", "--seeds=100000000000000000000000"], "is too large; the greatest is 4294967295"),
        (["1", "--seeds="], "no seed is given; give one, as SEED=0"),
        (["1", "--seeds=1.5"], "seed '1.5' is not a whole number"),
        (["1", "--preset="], "preset '' is unknown; choose one of smoke"),
        ([""], "lesson is empty; give a whole number"),
        (["1", "--preset", "huge"], "preset 'huge' is unknown; choose one of smoke, cpu, full, gpu"),
        (["1", "--data", "imagenet"], "lesson 1 has no data set 'imagenet'; choose one of digits, cifar10"),
        (["1", "--part", "cnn"], "lesson 1 has no part 'cnn'; it has no parts: leave PART out"),
        (["1", "--device", "tpu"], "device 'tpu' is unknown; choose cpu or cuda"),
    ],
)
def test_impossible_requests_are_one_line(monkeypatch, capsys, arguments, message):
    status, error = call(monkeypatch, capsys, *arguments)
    assert status == 2
    assert message in error
    assert error.startswith("error: ")
    assert "\n" not in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("arguments", [["1", "--preset", "gpu"], ["1", "--device", "cuda"]])
def test_a_missing_gpu_is_an_error(monkeypatch, capsys, arguments):
    status, error = call(monkeypatch, capsys, *arguments)
    assert status == 2
    assert "needs a CUDA GPU" in error
    assert "make doctor" in error


def test_results_need_three_seeds(monkeypatch, capsys):
    status, error = call(monkeypatch, capsys, "1", "--seeds", "0", "1", command=results.record_results)
    assert status == 2
    assert "at least 3" in error


def test_an_unexpected_verdict_is_a_failed_command(monkeypatch, capsys):
    assert call(monkeypatch, capsys, "1", command=lambda *_: False)[0] == 1
    assert call(monkeypatch, capsys, "1", command=lambda *_: True)[0] == 0


def test_ctrl_c_prints_how_to_continue(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    status, error = call(monkeypatch, capsys, "1", command=interrupted)
    assert status == 130
    assert "RESUME=1" in error


SOLVED = """def double(x):
    # exercise 1.1: double it
    y = x + x
    return y
    # end exercise
"""


def test_only_the_solution_is_taken_out(tmp_path):
    (tmp_path / "code.py").write_text(SOLVED)
    (exercise,) = find_exercises(tmp_path)
    assert (exercise.number, exercise.title, exercise.first, exercise.last) == ("1.1", "double it", 2, 4)
    namespace = {}
    exec(without_solutions(SOLVED), namespace)
    with pytest.raises(NotImplementedError, match=r"exercise 1\.1: double it"):
        namespace["double"](1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# exercise 1.1: a\n", "has no"),
        ("# end exercise\n", "without a beginning"),
        ("# exercise 1.1: a\n# exercise 1.2: b\n# end exercise\n", "before that of line"),
        (SOLVED + SOLVED, "give one another number"),
    ],
)
def test_unpaired_markers_are_errors(tmp_path, text, message):
    (tmp_path / "code.py").write_text(text)
    with pytest.raises(CourseError, match=message):
        find_exercises(tmp_path)
