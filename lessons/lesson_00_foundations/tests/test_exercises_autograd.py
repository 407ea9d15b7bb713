"""The exercises of the part `autograd`: each test says what must hold, and a small mistake breaks one of them."""

import pytest
import torch
from torch.nn import functional as F


def close(given, expected, tolerance=1e-9):
    torch.testing.assert_close(given.double(), expected.double(), atol=tolerance, rtol=0)


# ── 0.1: the chain rule ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.exercise("0.1")
@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_neuron_is_differentiated_as_pytorch_does_it(student, width):
    inputs, weights, bias = (torch.randn(size, dtype=torch.float64) for size in (width, width, 1))
    output, *gradients = student("autograd.reference:neuron_gradients", inputs=inputs, weights=weights, bias=bias)
    theirs = [x.clone().requires_grad_() for x in (inputs, weights, bias)]
    expected = torch.tanh(theirs[0] @ theirs[1] + theirs[2])
    close(output, expected.detach())
    for given, right in zip(gradients, torch.autograd.grad(expected.sum(), theirs), strict=True):
        close(given, right)


@pytest.mark.exercise("0.1")
def test_a_number_used_twice_changes_the_outcome_in_two_ways(student):
    number = torch.tensor([0.7], dtype=torch.float64)
    value, gradient = student("autograd.reference:square_and_its_gradient", number=number)
    close(value, number**2)
    close(gradient, 2 * number)


# ── 0.2: cross-entropy ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.exercise("0.2")
@pytest.mark.parametrize("size", [1.0, 40.0, 900.0])
def test_the_gradient_of_cross_entropy(student, size):
    """Also where e^logit is more than a number can hold."""
    logits, labels = torch.randn(4, 6, dtype=torch.float64) * size, [0, 5, 2, 2]
    gradient = student("autograd.reference:cross_entropy_gradient", logits=logits, labels=labels)
    theirs = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(F.cross_entropy(theirs, torch.tensor(labels)), theirs)
    close(gradient, expected)


# ── 0.3 and 0.4: steps ────────────────────────────────────────────────────────────────────────────────────────────────


def steps_of(optimizer, gradients, weight):
    weight = torch.nn.Parameter(weight.clone())
    taking_steps = optimizer([weight])
    for gradient in gradients:
        weight.grad = gradient.clone()
        taking_steps.step()
        yield weight.detach().clone()


@pytest.mark.exercise("0.3")
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_momentum_takes_pytorchs_steps(student, momentum):
    weight, gradients = torch.randn(3, 2), torch.randn(4, 3, 2)
    velocity = torch.zeros(3, 2)
    expected = steps_of(lambda p: torch.optim.SGD(p, 0.1, momentum=momentum), gradients, weight)
    for gradient, right in zip(gradients, expected, strict=True):
        weight, velocity = student(
            "autograd.model:momentum_step", weight=weight, gradient=gradient, velocity=velocity, learning_rate=0.1, momentum=momentum,
        )  # fmt: skip
        close(weight, right, 1e-6)


@pytest.mark.exercise("0.4")
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.8)])
def test_adam_takes_pytorchs_steps(student, betas):
    weight, gradients = torch.randn(3, 2), torch.randn(4, 3, 2) * torch.tensor([1e-3, 1.0, 100.0, 1.0])[:, None, None]
    mean, square = torch.zeros(3, 2), torch.zeros(3, 2)
    expected = steps_of(lambda p: torch.optim.Adam(p, 0.1, betas=betas, eps=1e-4), gradients, weight)
    for step, (gradient, right) in enumerate(zip(gradients, expected, strict=True), start=1):
        weight, mean, square = student(
            "autograd.model:adam_step", weight=weight, gradient=gradient, mean=mean, square=square, step=step, learning_rate=0.1,
            betas=betas, eps=1e-4,
        )  # fmt: skip
        close(weight, right, 1e-6)
