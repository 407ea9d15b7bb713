"""The exercises of the part `autograd`: each test checks a property that small mistakes break."""

import pytest
import torch
from torch.nn import functional as F


def assert_close(actual, expected, tolerance=1e-9):
    torch.testing.assert_close(actual.double(), expected.double(), atol=tolerance, rtol=0)


# ── 0.1: the chain rule ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.exercise("0.1")
@pytest.mark.parametrize("width", [1, 2, 5])
def test_the_gradients_of_a_neuron_equal_pytorchs(student, width):
    inputs, weights, bias = (torch.randn(size, dtype=torch.float64) for size in (width, width, 1))
    output, *gradients = student("autograd.reference:neuron_gradients", inputs=inputs, weights=weights, bias=bias)
    torch_inputs = [x.clone().requires_grad_() for x in (inputs, weights, bias)]
    expected = torch.tanh(torch_inputs[0] @ torch_inputs[1] + torch_inputs[2])
    assert_close(output, expected.detach())
    for gradient, expected_gradient in zip(gradients, torch.autograd.grad(expected.sum(), torch_inputs), strict=True):
        assert_close(gradient, expected_gradient)


@pytest.mark.exercise("0.1")
def test_the_gradients_of_a_number_used_twice_add_up(student):
    number = torch.tensor([0.7], dtype=torch.float64)
    value, gradient = student("autograd.reference:square_and_gradient", number=number)
    assert_close(value, number**2)
    assert_close(gradient, 2 * number)


@pytest.mark.exercise("0.1")
def test_a_number_that_is_used_twice_passes_its_complete_gradient_on_once(student):
    number = torch.randn(1, dtype=torch.float64)
    value, gradient = student("autograd.reference:fourth_power_and_gradient", number=number)
    assert_close(value, number**4)
    assert_close(gradient, 4 * number**3)


# ── 0.2: cross-entropy ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.exercise("0.2")
@pytest.mark.parametrize("size", [1.0, 40.0, 900.0])
def test_the_gradient_of_cross_entropy(student, size):
    """Also for logits whose exponential overflows."""
    logits, labels = torch.randn(4, 6, dtype=torch.float64) * size, [0, 5, 2, 2]
    gradient = student("autograd.reference:cross_entropy_gradient", logits=logits, labels=labels)
    torch_logits = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(F.cross_entropy(torch_logits, torch.tensor(labels)), torch_logits)
    assert_close(gradient, expected)


# ── 0.3 and 0.4: steps ────────────────────────────────────────────────────────────────────────────────────────────────


def torch_steps(make_optimizer, gradients, weight):
    """Yield the weight after each step of a PyTorch optimizer."""
    weight = torch.nn.Parameter(weight.clone())
    optimizer = make_optimizer([weight])
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
        yield weight.detach().clone()


@pytest.mark.exercise("0.3")
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_momentum_steps_equal_pytorchs(student, momentum):
    weight, gradients = torch.randn(3, 2), torch.randn(4, 3, 2)
    velocity = torch.zeros(3, 2)
    expected = torch_steps(lambda p: torch.optim.SGD(p, 0.1, momentum=momentum), gradients, weight)
    for gradient, expected_weight in zip(gradients, expected, strict=True):
        arguments = {"weight": weight, "gradient": gradient, "velocity": velocity}
        weight, velocity = student("autograd.model:momentum_step", learning_rate=0.1, momentum=momentum, **arguments)
        assert_close(weight, expected_weight, 1e-6)


@pytest.mark.exercise("0.4")
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.8)])
def test_adam_steps_equal_pytorchs(student, betas):
    weight, gradients = torch.randn(3, 2), torch.randn(4, 3, 2) * torch.tensor([1e-3, 1.0, 100.0, 1.0])[:, None, None]
    mean, square = torch.zeros(3, 2), torch.zeros(3, 2)
    expected = torch_steps(lambda p: torch.optim.Adam(p, 0.1, betas=betas, eps=1e-4), gradients, weight)
    for step, (gradient, expected_weight) in enumerate(zip(gradients, expected, strict=True), start=1):
        arguments = {"weight": weight, "gradient": gradient, "moments": (mean, square), "step": step}
        weight, mean, square = student(
            "autograd.model:adam_step", learning_rate=0.1, betas=betas, eps=1e-4, **arguments
        )
        assert_close(weight, expected_weight, 1e-6)


@pytest.mark.exercise("0.3")
def test_a_changed_learning_rate_scales_all_of_the_velocity(student):
    weight, gradient, velocity = torch.randn(3, 3, 2)
    arguments = {"weight": weight, "gradient": gradient, "velocity": velocity, "momentum": 0.9}
    moved, new_velocity = student("autograd.model:momentum_step", learning_rate=0.1, **arguments)
    further, same_velocity = student("autograd.model:momentum_step", learning_rate=0.3, **arguments)
    assert_close(further - weight, 3 * (moved - weight), 1e-6)
    assert_close(same_velocity, new_velocity)


# ── axes of size 1 ────────────────────────────────────────────────────────────────────────────────────────────────────

SIZE_ONE = [
    pytest.param(
        "autograd.model:momentum_step",
        dict.fromkeys(("weight", "gradient", "velocity"), torch.ones(1, 3)) | {"learning_rate": 0.1, "momentum": 0.9},
        [(1, 3)] * 2,
        marks=pytest.mark.exercise("0.3"),
    ),
    pytest.param(
        "autograd.model:adam_step",
        {
            "weight": torch.ones(1, 3),
            "gradient": torch.ones(1, 3),
            "moments": (torch.ones(1, 3),) * 2,
            "step": 1,
            "learning_rate": 0.1,
        },
        [(1, 3)] * 3,
        marks=pytest.mark.exercise("0.4"),
    ),
]


@pytest.mark.parametrize(("function", "arguments", "shapes"), SIZE_ONE)
def test_axes_of_size_one_stay(student, function, arguments, shapes):
    result = student(function, **arguments)
    assert [tuple(part.shape) for part in (result if isinstance(result, tuple) else (result,))] == shapes
