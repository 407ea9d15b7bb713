"""The part `autograd`: scalars, tensors and PyTorch agree, and the network learns."""

from pathlib import Path
from random import Random

import pytest

from lessons.lesson_00_foundations.autograd import reference
from lessons.lesson_00_foundations.autograd.experiment import arms
from lessons.lesson_00_foundations.autograd.experiment.operators import OPERATORS, errors

SETTINGS = {"seed": 0, "data": "digits", "device": "cpu", "folder": Path("unused"), "resume": False}


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.name)
def test_every_operator_against_pushing_and_pytorch(operator):
    for seed in range(3):
        pushed, torchs = errors(operator, Random(seed))
        assert pushed < 1e-6
        assert torchs < 1e-12


def test_a_wrong_rule_is_found():
    """The check itself can fail: a gradient of tanh without its square is off."""
    from dataclasses import replace

    right = next(operator for operator in OPERATORS if operator.name == "tanh")
    assert max(errors(replace(right, ours=lambda a: a), Random(0))) > 0.1


def test_finite_differences_of_a_known_function():
    slopes = reference.finite_differences(lambda x: x[0] ** 3 + 2 * x[0] * x[1], [2.0, -1.0])
    assert slopes == pytest.approx([3 * 4 - 2, 4], abs=1e-8)


def test_the_graph_is_told_in_order():
    a, b = reference.Value(2.0, "a"), reference.Value(3.0, "b")
    outcome = a * b + a
    order = reference.ancestors_first(outcome)
    assert order.index(a) < order.index(outcome.parents[0]) < order.index(outcome)
    outcome.backward()
    assert (a.grad, b.grad) == (4.0, 2.0)
    assert [line.split()[0] for line in reference.graph_lines(outcome)] == ["+", "×", "a", "b", "a"]


def test_it_learns_and_the_worlds_stay_together():
    measured = arms.train_in_both_worlds(**SETTINGS, steps=150)
    assert measured["accuracy"] > max(0.9, measured["nearest_mean"])
    assert measured["loss_difference"] < 1e-6
    assert measured["accuracy"] == pytest.approx(measured["torch_accuracy"], abs=0.01)


def test_a_rate_that_is_too_large_is_never_the_best():
    measured = arms.train_with(**SETTINGS, optimizer="sgd", rates=[0.3, 1e6], steps=40)
    assert measured["rate"] == 0.3
