"""The standard-library engine against simpler code: scalar autograd, and a sum over a map of products.

    python -m benchmarks.stdlib_engine

Both sides compute the same numbers, which is checked. The median processor time counts.
"""

import math
from random import Random

from benchmarks.report import Row, print_rows
from benchmarks.timing import time_in_turns
from shared.stdlib import digits
from shared.stdlib.creation import normal
from shared.stdlib.dot import dot_products_by_distance, dot_products_direct
from shared.stdlib.functional import cross_entropy
from shared.stdlib.nn import Linear
from shared.stdlib.shapes import rows_of
from shared.stdlib.tensor import Tensor

ROUNDS = 5
WIDTHS = (32, 64, 128, 512)
BATCH_SIZES = (1, 32)
MLP_DIM = 32


def measure(rounds: int = ROUNDS) -> list[Row]:
    """Return rows in milliseconds."""
    return [
        *(_measure_dot_products(width, rounds) for width in WIDTHS),
        *(_measure_training_step(batch_size, rounds) for batch_size in BATCH_SIZES),
    ]


def _measure_dot_products(width: int, rounds: int) -> Row:
    """Multiply 64 rows by 64 rows, as a small layer does."""
    left, right = (rows_of(normal((64, width), 1.0, Random(seed)).data, width) for seed in (0, 1))
    functions = {
        "course": lambda: dot_products_by_distance(left, right),
        "direct": lambda: dot_products_direct(left, right),
    }
    timings = time_in_turns(functions, rounds)
    products, expected = timings["course"].result, timings["direct"].result
    assert max(abs(a - b) for a, b in zip(products, expected, strict=True)) < 1e-12 * width
    name = f"dot products {width} wide, by distance against sum(map(mul))"
    return Row.of_cost(name, timings["course"].median_ms, timings["direct"].median_ms, "ms")


def _measure_training_step(batch_size: int, rounds: int) -> Row:
    """Compute loss and gradients of a two-layer network on real digits, 64 → 32 → 10, from the same weights."""
    data = digits.load().subset(list(range(batch_size)))
    first, second = Linear(64, MLP_DIM, Random(0)), Linear(MLP_DIM, digits.CLASSES, Random(1))
    parameters = [first.weight, first.bias, second.weight, second.bias]
    images = Tensor([pixel / digits.MAX_PIXEL for image in data.images for pixel in image], (batch_size, 64))
    scalars = [[Scalar(value) for value in parameter.data] for parameter in parameters]

    def tensor_step() -> float:
        for parameter in parameters:
            parameter.grad = None
        loss = cross_entropy(second(first(images).tanh()), data.labels)
        loss.backward()
        return loss.item()

    def scalar_step() -> float:
        for scalar in (scalar for row in scalars for scalar in row):
            scalar.grad = 0.0
        loss = _scalar_loss(scalars, images, data.labels)
        loss.backward()
        return loss.data

    timings = time_in_turns({"course": tensor_step, "scalar": scalar_step}, rounds)
    assert math.isclose(timings["course"].result, timings["scalar"].result, rel_tol=1e-9)
    for parameter, row in zip(parameters, scalars, strict=True):
        assert all(abs(a - b.grad) < 1e-9 for a, b in zip(parameter.grad, row, strict=True))
    images_text = "1 image" if batch_size == 1 else f"{batch_size} images"
    name = f"training step on {images_text}, tensors against scalar autograd"
    return Row.of_cost(name, timings["course"].median_ms, timings["scalar"].median_ms, "ms")


class Scalar:
    """A number that stores its parents and its derivatives with respect to each of them."""

    __slots__ = ("data", "derivatives", "grad", "parents")

    def __init__(self, data: float, parents: tuple["Scalar", ...] = (), derivatives: tuple[float, ...] = ()):
        self.data, self.grad, self.parents, self.derivatives = data, 0.0, parents, derivatives

    def __add__(self, other: "Scalar") -> "Scalar":
        return Scalar(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other: "Scalar") -> "Scalar":
        return Scalar(self.data * other.data, (self, other), (other.data, self.data))

    def times(self, factor: float) -> "Scalar":
        return Scalar(self.data * factor, (self,), (factor,))

    def tanh(self) -> "Scalar":
        value = math.tanh(self.data)
        return Scalar(value, (self,), (1.0 - value * value,))

    def exp(self) -> "Scalar":
        value = math.exp(self.data)
        return Scalar(value, (self,), (value,))

    def log(self) -> "Scalar":
        return Scalar(math.log(self.data), (self,), (1.0 / self.data,))

    def backward(self) -> None:
        order, visited, stack = [], set(), [(self, False)]
        while stack:
            node, parents_done = stack.pop()
            if parents_done:
                order.append(node)
            elif node not in visited:
                visited.add(node)
                stack.append((node, True))
                stack.extend((parent, False) for parent in node.parents)
        self.grad = 1.0
        for node in reversed(order):
            for parent, derivative in zip(node.parents, node.derivatives, strict=True):
                parent.grad += derivative * node.grad


def _scalar_loss(scalars: list[list[Scalar]], images: Tensor, labels: list[int]) -> Scalar:
    weight, bias, output_weight, output_bias = scalars
    total = Scalar(0.0)
    for pixels, label in zip(images.tolist(), labels, strict=True):
        # A pixel is a constant, so a product with it needs no second derivative.
        sums = [b + _sum([w.times(x) for w, x in zip(row, pixels, strict=True)]) for row, b in _rows(weight, bias)]
        units = [number.tanh() for number in sums]
        logits = [
            b + _sum([w * unit for w, unit in zip(row, units, strict=True)])
            for row, b in _rows(output_weight, output_bias)
        ]
        total = total + _sum([logit.exp() for logit in logits]).log() + logits[label].times(-1.0)
    return total.times(1.0 / len(labels))


def _rows(weight: list[Scalar], bias: list[Scalar]) -> list[tuple[list[Scalar], Scalar]]:
    width = len(weight) // len(bias)
    return [(weight[number * width : (number + 1) * width], b) for number, b in enumerate(bias)]


def _sum(numbers: list[Scalar]) -> Scalar:
    total = numbers[0]
    for number in numbers[1:]:
        total = total + number
    return total


if __name__ == "__main__":
    print_rows(measure())
