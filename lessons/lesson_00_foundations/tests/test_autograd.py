"""The part `autograd`: scalars, tensors and PyTorch agree, and the network learns."""

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from lessons.lesson_00_foundations.autograd import reference
from lessons.lesson_00_foundations.autograd.experiment import train
from lessons.lesson_00_foundations.autograd.experiment.operators import OPERATORS, gradient_errors
from shared.course.context import RunContext

CONTEXT = RunContext(seed=0, data="digits", device="cpu", folder=Path("unused"))


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.name)
def test_every_operator_equals_finite_differences_and_pytorch(operator):
    for seed in range(3):
        from_differences, from_torch = gradient_errors(operator, Random(seed))
        assert from_differences < 1e-6
        assert from_torch < 1e-12


def test_a_wrong_gradient_is_found():
    """The check itself can fail: a tanh that is replaced by the identity has another gradient."""
    tanh = next(operator for operator in OPERATORS if operator.name == "tanh")
    assert max(gradient_errors(replace(tanh, plain_function=lambda a: a), Random(0))) > 0.1


def test_finite_differences_of_a_known_function():
    gradient = reference.finite_differences(lambda x: x[0] ** 3 + 2 * x[0] * x[1], [2.0, -1.0])
    assert gradient == pytest.approx([3 * 4 - 2, 4], abs=1e-8)


def test_the_graph_is_in_topological_order():
    a, b = reference.Value(2.0, "a"), reference.Value(3.0, "b")
    output = a * b + a
    order = reference.topological_order(output)
    assert order.index(a) < order.index(output.parents[0]) < order.index(output)
    output.backward()
    assert (a.grad, b.grad) == (4.0, 2.0)
    assert [line.split()[0] for line in reference.graph_lines(output)] == ["+", "×", "a", "b", "a"]


def test_pure_python_and_pytorch_train_alike():
    measured = train.train_reference_and_pytorch(CONTEXT, steps=150)
    assert measured["accuracy"] > max(0.9, measured["nearest_mean"])
    assert measured["loss_difference"] < 1e-6
    assert measured["accuracy"] == pytest.approx(measured["torch_accuracy"], abs=0.01)


def test_a_learning_rate_that_is_too_large_is_never_the_best():
    measured = train.train_with_optimizer(CONTEXT, optimizer="sgd", learning_rates=[0.3, 1e6], steps=40)
    assert measured["learning_rate"] == 0.3
