"""What a person sees who asks for something that can't be: one line, a status, no traceback, nothing lost."""

import sys

import pytest
import torch

from shared.course import results, run
from shared.course.exercises import find_exercises, without_solutions
from shared.errors import CourseError


def ask(monkeypatch, capsys, *arguments, act=run._act):
    """The status and the error line of a command."""
    monkeypatch.setattr(sys, "argv", ["run", *arguments])
    status = run.from_command_line("run a lesson", act)
    return status, capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["99"], "lesson 99 is not in this course; built so far: "),
        (["25"], "lesson 25 is planned, not built yet"),
        (["one"], "lesson 'one' is not a whole number"),
        (["1", "--seeds", "x"], "seed 'x' is not a whole number"),
        (["1", "--preset", "huge"], "preset 'huge' is not known; choose one of smoke, cpu, full, gpu"),
        (["1", "--data", "imagenet"], "lesson 1 knows no data set 'imagenet'; choose one of digits, cifar10"),
        (["1", "--part", "cnn"], "lesson 1 has no part 'cnn'; it is of one piece: leave PART out"),
        (["1", "--device", "tpu"], "device 'tpu' is not known; choose cpu or cuda"),
    ],
)
def test_impossible_wishes_are_one_line(monkeypatch, capsys, arguments, says):
    status, error = ask(monkeypatch, capsys, *arguments)
    assert status == 2
    assert says in error
    assert error.startswith("error: ")
    assert "\n" not in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("arguments", [["1", "--preset", "gpu"], ["1", "--device", "cuda"]])
def test_a_gpu_that_is_not_there(monkeypatch, capsys, arguments):
    status, error = ask(monkeypatch, capsys, *arguments)
    assert status == 2
    assert "needs a CUDA GPU" in error
    assert "make doctor" in error


def test_results_take_three_seeds(monkeypatch, capsys):
    status, error = ask(monkeypatch, capsys, "1", "--seeds", "0", "1", act=results.measure)
    assert status == 2
    assert "at least 3" in error


def test_a_verdict_that_differs_is_a_failed_command(monkeypatch, capsys):
    assert ask(monkeypatch, capsys, "1", act=lambda *_: False)[0] == 1
    assert ask(monkeypatch, capsys, "1", act=lambda *_: True)[0] == 0


def test_ctrl_c_says_how_to_go_on(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    status, error = ask(monkeypatch, capsys, "1", act=interrupted)
    assert status == 130
    assert "RESUME=1" in error


SOLVED = """def double(x):
    # exercise 1.1: double it
    y = x + x
    return y
    # end exercise
"""


def test_a_solution_is_taken_out_and_nothing_else(tmp_path):
    (tmp_path / "code.py").write_text(SOLVED)
    (found,) = find_exercises(tmp_path)
    assert (found.number, found.title, found.first, found.last) == ("1.1", "double it", 2, 4)
    space = {}
    exec(without_solutions(SOLVED), space)
    with pytest.raises(NotImplementedError, match=r"exercise 1\.1: double it"):
        space["double"](1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# exercise 1.1: a\n", "has no"),
        ("# end exercise\n", "without a beginning"),
        ("# exercise 1.1: a\n# exercise 1.2: b\n# end exercise\n", "before the one"),
        (SOLVED + SOLVED, "give one another number"),
    ],
)
def test_markers_that_do_not_pair_up(tmp_path, text, says):
    (tmp_path / "code.py").write_text(text)
    with pytest.raises(CourseError, match=says):
        find_exercises(tmp_path)
