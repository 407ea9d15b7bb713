"""Every operator of the pure-Python engine, its PyTorch counterpart, and the shapes on which they are compared."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import torch
from torch.nn import functional as F

from lessons.lesson_00_foundations.autograd.reference import finite_differences
from shared.stdlib import functional
from shared.stdlib.tensor import Tensor


@dataclass(frozen=True)
class Operator:
    """Describe one operator: its pure-Python and PyTorch functions, and the shapes of its arguments.

    `positive` restricts the random inputs to positive numbers.
    """

    name: str
    plain_function: Callable
    torch_function: Callable
    shapes: tuple[tuple[int, ...], ...]
    positive: bool = False


LABELS = [2, 0, 1]
MATRIX, ROW = (3, 4), (4,)

OPERATORS = (
    Operator("a + b, broadcast", lambda a, b: a + b, lambda a, b: a + b, (MATRIX, ROW)),
    Operator("a − b", lambda a, b: a - b, lambda a, b: a - b, (MATRIX, MATRIX)),
    Operator("a · b", lambda a, b: a * b, lambda a, b: a * b, (MATRIX, MATRIX)),
    Operator("a / b", lambda a, b: a / b, lambda a, b: a / b, (MATRIX, MATRIX), positive=True),
    Operator("a³", lambda a: a**3.0, lambda a: a**3.0, (MATRIX,)),
    Operator("exp", lambda a: a.exp(), torch.exp, (MATRIX,)),
    Operator("log", lambda a: a.log(), torch.log, (MATRIX,), positive=True),
    Operator("√", lambda a: a.sqrt(), torch.sqrt, (MATRIX,), positive=True),
    Operator("tanh", lambda a: a.tanh(), torch.tanh, (MATRIX,)),
    Operator("relu", lambda a: a.relu(), torch.relu, (MATRIX,)),
    Operator("sum", lambda a: a.sum(0), lambda a: a.sum(0), (MATRIX,)),
    Operator("mean", lambda a: a.mean(1), lambda a: a.mean(1), (MATRIX,)),
    Operator("max", lambda a: a.max(1), lambda a: a.amax(1), (MATRIX,)),
    Operator("transpose", lambda a: a.transpose(), lambda a: a.mT, (MATRIX,)),
    Operator("slice", lambda a: a[1:, 2], lambda a: a[1:, 2], (MATRIX,)),
    Operator("matrix product", lambda a, b: a @ b, lambda a, b: a @ b, (MATRIX, (4, 2))),
    Operator("linear", functional.linear, F.linear, (MATRIX, (5, 4), (5,))),
    Operator("sigmoid", functional.sigmoid, torch.sigmoid, (MATRIX,)),
    Operator("gelu", functional.gelu, F.gelu, (MATRIX,)),
    Operator("silu", functional.silu, F.silu, (MATRIX,)),
    Operator("softmax", functional.softmax, lambda a: F.softmax(a, dim=-1), (MATRIX,)),
    Operator("layer norm", functional.layer_norm, lambda a, w, b: F.layer_norm(a, ROW, w, b, 1e-6), (MATRIX, ROW, ROW)),
    Operator("RMS norm", functional.rms_norm, lambda a, w: F.rms_norm(a, ROW, w, 1e-6), (MATRIX, ROW)),
    Operator("attention", functional.attention, F.scaled_dot_product_attention, ((2, 3, 4), (2, 5, 4), (2, 5, 3))),
    Operator(
        "cross-entropy",
        lambda a: functional.cross_entropy(a, LABELS),
        lambda a: F.cross_entropy(a, torch.tensor(LABELS)),
        (MATRIX,),
    ),
)


def gradient_errors(operator: Operator, random: Random) -> tuple[float, float]:
    """Return the engine's largest gradient error against finite differences, and against PyTorch, at random inputs."""
    sizes = [math.prod(shape) for shape in operator.shapes]
    draw = (lambda: random.uniform(0.5, 2.0)) if operator.positive else (lambda: random.gauss(0.0, 1.0))
    data = [[draw() for _ in range(size)] for size in sizes]
    torch_inputs = [
        torch.tensor(numbers, dtype=torch.float64).reshape(shape).requires_grad_()
        for numbers, shape in zip(data, operator.shapes, strict=True)
    ]
    result = operator.torch_function(*torch_inputs)
    # A random weighted sum of the outputs is one number on which every output has its own effect.
    upstream = [random.gauss(0.0, 1.0) for _ in range(result.numel())]
    torch_gradients = torch.autograd.grad(
        result, torch_inputs, torch.tensor(upstream, dtype=torch.float64).reshape(result.shape)
    )

    def weighted_sum(flat: list[float], requires_grad: bool = False) -> tuple[Tensor, list[Tensor]]:
        inputs, start = [], 0
        for size, shape in zip(sizes, operator.shapes, strict=True):
            inputs.append(Tensor(flat[start : start + size], shape, requires_grad))
            start += size
        output = operator.plain_function(*inputs)
        return (output * Tensor(upstream, output.shape)).sum(), inputs

    flat = [number for numbers in data for number in numbers]
    total, inputs = weighted_sum(flat, requires_grad=True)
    total.backward()
    gradient = [number for tensor in inputs for number in tensor.grad]
    estimate = finite_differences(lambda numbers: weighted_sum(numbers)[0].item(), flat)
    expected = [number for tensor in torch_gradients for number in tensor.flatten().tolist()]
    return _largest_difference(gradient, estimate), _largest_difference(gradient, expected)


def _largest_difference(numbers: list[float], others: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(numbers, others, strict=True))
