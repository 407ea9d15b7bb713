"""The pure-Python engine against what one would write first: a number at a time, and a sum over a map of products.

    python -m benchmarks.stdlib_engine

Both sides compute the same numbers (which is checked), take turns in one process, and the median turn counts.
Time is the processor's, so that other programs on the machine weigh little. Standard library only.
"""

import math
import statistics
import sys
import time
from collections.abc import Callable
from random import Random

from shared.stdlib import digits
from shared.stdlib.creation import normal
from shared.stdlib.dot import dot_products_by_distance, dot_products_direct
from shared.stdlib.functional import cross_entropy
from shared.stdlib.nn import Linear
from shared.stdlib.shapes import rows_of
from shared.stdlib.tensor import Tensor

ROUNDS = 5
WIDTHS = (32, 64, 128, 512)
BATCHES = (1, 32)
HIDDEN = 32


def measure(rounds: int = ROUNDS) -> list[dict]:
    """Rows of name, ours, theirs (milliseconds), ratio (theirs / ours: above 1 we are faster) and unit."""
    return [
        *(_dot_product_row(width, rounds) for width in WIDTHS),
        *(_training_row(batch, rounds) for batch in BATCHES),
    ]


def _dot_product_row(width: int, rounds: int) -> dict:
    """64 rows by 64 rows, as the products of a small layer are."""
    left, right = (rows_of(normal((64, width), 1.0, Random(seed)).data, width) for seed in (0, 1))
    ours, theirs = dot_products_by_distance(left, right), dot_products_direct(left, right)
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 1e-12 * width
    return _row(
        f"dot products {width} wide, by distance against sum(map(mul))",
        lambda: dot_products_by_distance(left, right),
        lambda: dot_products_direct(left, right),
        rounds,
    )


def _training_row(batch: int, rounds: int) -> dict:
    """Loss and every gradient of a two-layer network on real digits, 64 → 32 → 10, from the same weights."""
    data = digits.load().subset(list(range(batch)))
    first, second = Linear(64, HIDDEN, Random(0)), Linear(HIDDEN, digits.CLASSES, Random(1))
    parameters = [first.weight, first.bias, second.weight, second.bias]
    images = Tensor([pixel / digits.MAX_PIXEL for image in data.images for pixel in image], (batch, 64))
    scalars = [[Scalar(value) for value in parameter.data] for parameter in parameters]

    def ours() -> float:
        for parameter in parameters:
            parameter.grad = None
        loss = cross_entropy(second(first(images).tanh()), data.labels)
        loss.backward()
        return loss.item()

    def theirs() -> float:
        for number in (scalar for row in scalars for scalar in row):
            number.grad = 0.0
        loss = _scalar_loss(scalars, images, data.labels)
        loss.backward()
        return loss.data

    assert math.isclose(ours(), theirs(), rel_tol=1e-9)
    for parameter, row in zip(parameters, scalars, strict=True):
        assert all(abs(a - b.grad) < 1e-9 for a, b in zip(parameter.grad, row, strict=True))
    images_named = "1 image" if batch == 1 else f"{batch} images"
    return _row(f"training step on {images_named}, tensors against scalar autograd", ours, theirs, rounds)


def _row(name: str, ours: Callable, theirs: Callable, rounds: int) -> dict:
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for side, work in zip(times, (ours, theirs), strict=True):
            start = time.process_time()
            work()
            side.append(1e3 * (time.process_time() - start))
    mine, other = map(statistics.median, times)
    return {"name": name, "ours": mine, "theirs": other, "ratio": other / mine, "unit": "ms"}


class Scalar:
    """One number that remembers what it was made from, and the slope with respect to each of those."""

    __slots__ = ("data", "grad", "parents", "slopes")

    def __init__(self, data: float, parents: tuple["Scalar", ...] = (), slopes: tuple[float, ...] = ()):
        self.data, self.grad, self.parents, self.slopes = data, 0.0, parents, slopes

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
        order, seen, stack = [], set(), [(self, False)]
        while stack:
            node, parents_done = stack.pop()
            if parents_done:
                order.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack.extend((parent, False) for parent in node.parents)
        self.grad = 1.0
        for node in reversed(order):
            for parent, slope in zip(node.parents, node.slopes, strict=True):
                parent.grad += slope * node.grad


def _scalar_loss(scalars: list[list[Scalar]], images: Tensor, labels: list[int]) -> Scalar:
    weight, bias, weight_out, bias_out = scalars
    total = Scalar(0.0)
    for pixels, label in zip(images.tolist(), labels, strict=True):
        # A pixel is a constant: multiplying by it needs no second slope.
        hidden = [b + _sum([w.times(x) for w, x in zip(row, pixels, strict=True)]) for row, b in _rows(weight, bias)]
        hidden = [number.tanh() for number in hidden]
        logits = [b + _sum([w * h for w, h in zip(row, hidden, strict=True)]) for row, b in _rows(weight_out, bias_out)]
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


def main() -> None:
    print(f"Python {sys.version.split()[0]}; milliseconds of processor time, median of {ROUNDS}")
    for row in measure():
        print(f"{row['name']:64}{row['ours']:10.2f}{row['theirs']:10.2f}{row['ratio']:8.1f}×")


if __name__ == "__main__":
    main()
