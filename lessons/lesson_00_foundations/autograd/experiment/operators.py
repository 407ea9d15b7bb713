"""Every operator of the pure-Python engine beside PyTorch's, with the shapes on which the two are compared."""

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
    """One operator in both worlds, and the shapes of its arguments; `positive` where only positive numbers make sense."""

    name: str
    ours: Callable
    theirs: Callable
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


def errors(operator: Operator, random: Random) -> tuple[float, float]:
    """How far the engine's gradients are from finite differences and from PyTorch's, at random numbers."""
    sizes = [torch.Size(shape).numel() for shape in operator.shapes]
    draw = (lambda: random.uniform(0.5, 2.0)) if operator.positive else (lambda: random.gauss(0.0, 1.0))
    data = [[draw() for _ in range(size)] for size in sizes]
    theirs = [
        torch.tensor(numbers, dtype=torch.float64).reshape(shape).requires_grad_()
        for numbers, shape in zip(data, operator.shapes, strict=True)
    ]
    result = operator.theirs(*theirs)
    # A random weighing of the outputs makes one number of them, to which every output matters in a way of its own.
    upstream = [random.gauss(0.0, 1.0) for _ in range(result.numel())]
    expected = torch.autograd.grad(result, theirs, torch.tensor(upstream, dtype=torch.float64).reshape(result.shape))

    def weighed(flat: list[float], requires_grad: bool = False) -> tuple[Tensor, list[Tensor]]:
        parts, start = [], 0
        for size, shape in zip(sizes, operator.shapes, strict=True):
            parts.append(Tensor(flat[start : start + size], shape, requires_grad))
            start += size
        out = operator.ours(*parts)
        return (out * Tensor(upstream, out.shape)).sum(), parts

    flat = [number for numbers in data for number in numbers]
    outcome, parts = weighed(flat, requires_grad=True)
    outcome.backward()
    ours = [number for part in parts for number in part.grad]
    pushed = finite_differences(lambda numbers: weighed(numbers)[0].item(), flat)
    torchs = [number for gradient in expected for number in gradient.flatten().tolist()]
    return tuple(max(abs(a - b) for a, b in zip(ours, other, strict=True)) for other in (pushed, torchs))
