"""A tensor: numbers in a box, the operators on it, and how each operator is differentiated.

An operator here is a few lines: compute the flat list of the result, and hand `record_operation` a rule for the way back. Each
rule answers one question: if the outcome changes by g[i] for a small change in number i of my result, how does it change
with the numbers that I was given? The walk that strings the rules together is in `autograd.py`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence

from shared.stdlib.autograd import Gradients, Node, Rule, backpropagate, records_graph
from shared.stdlib.dot import dot_products
from shared.stdlib.shapes import (
    Shape,
    broadcast_shape,
    checked_axis,
    columns_of,
    expand,
    fold,
    lines,
    read_strided,
    rows_of,
    scatter_add,
    strided_index,
    strides_of,
)


class Tensor(Node):
    """Numbers in a box: a flat list in reading order, and the sizes of the box's sides.

    `grad` is None until `backward` fills it, then a flat list beside `data`: how the outcome changes with each number.
    Raises ValueError when the shape does not hold as many numbers as were given.
    """

    __slots__ = ("data", "shape")

    def __init__(self, data: list[float], shape: Shape, requires_grad: bool = False):
        if math.prod(shape) != len(data):
            raise ValueError(f"shape {shape} holds {math.prod(shape)} numbers, but {len(data)} were given")
        super().__init__(requires_grad)
        self.data = data
        self.shape = shape

    # ------------------------------------------------------------------ the way back

    def backward(self) -> None:
        """Fill `grad` of every tensor with `requires_grad` that this single number was made from.

        Gradients are added to what `grad` already holds, so that several losses can share one step.
        Raises ValueError when the tensor holds more than one number or was made from nothing that wants a gradient.
        """
        if len(self.data) != 1:
            raise ValueError(f"backward starts from one number, not from shape {self.shape}; sum or average it first")
        if not self.requires_grad:
            raise ValueError(
                "nothing this number was made from has requires_grad, so there is nothing to differentiate"
            )
        backpropagate(self)

    # ------------------------------------------------------------------ number by number

    def __add__(self, other: Tensor | float) -> Tensor:
        return _pairwise(self, other, operator.add, lambda g, a, b: g, lambda g, a, b: g)

    def __sub__(self, other: Tensor | float) -> Tensor:
        return _pairwise(self, other, operator.sub, lambda g, a, b: g, lambda g, a, b: list(map(operator.neg, g)))

    def __mul__(self, other: Tensor | float) -> Tensor:
        return _pairwise(
            self,
            other,
            operator.mul,
            lambda g, a, b: list(map(operator.mul, g, b)),
            lambda g, a, b: list(map(operator.mul, g, a)),
        )

    def __truediv__(self, other: Tensor | float) -> Tensor:
        return _pairwise(
            self,
            other,
            operator.truediv,
            lambda g, a, b: list(map(operator.truediv, g, b)),
            lambda g, a, b: [-g * a / (b * b) for g, a, b in zip(g, a, b, strict=True)],
        )

    def __neg__(self) -> Tensor:
        return self * -1.0

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: float) -> Tensor:
        return -self + other

    def __rtruediv__(self, other: float) -> Tensor:
        return as_tensor(other) / self

    def __pow__(self, exponent: float) -> Tensor:
        data = self.data
        power = [math.pow(x, exponent) for x in data]
        return self._each(power, lambda: [exponent * math.pow(x, exponent - 1) for x in data])

    def exp(self) -> Tensor:
        result = list(map(math.exp, self.data))
        return self._each(result, lambda: result)

    def log(self) -> Tensor:
        data = self.data
        return self._each(list(map(math.log, data)), lambda: [1.0 / x for x in data])

    def sqrt(self) -> Tensor:
        result = list(map(math.sqrt, self.data))
        return self._each(result, lambda: [0.5 / root for root in result])

    def tanh(self) -> Tensor:
        result = list(map(math.tanh, self.data))
        return self._each(result, lambda: [1.0 - y * y for y in result])

    def relu(self) -> Tensor:
        result = [max(x, 0.0) for x in self.data]
        return self._each(result, lambda: [float(y > 0.0) for y in result])

    def _each(self, result: list[float], slopes: Callable[[], list[float]]) -> Tensor:
        """The result of a function of one number, applied to each; `slopes` are its derivatives, made only if asked for."""
        return record_operation(result, self.shape, (self,), lambda g: (list(map(operator.mul, g, slopes())),))

    # ------------------------------------------------------------------ along an axis

    def sum(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Add up along one axis, or over everything."""
        if axis is None:
            return record_operation([sum(self.data)], (), (self,), lambda g: (g * len(self.data),))
        axis = checked_axis(axis, self.shape)
        kept = (*self.shape[:axis], 1, *self.shape[axis + 1 :])
        totals = list(map(sum, lines(self.data, self.shape, axis)))
        shape = kept if keepdims else kept[:axis] + kept[axis + 1 :]
        return record_operation(totals, shape, (self,), lambda g: (expand(g, kept, self.shape),))

    def mean(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        count = len(self.data) if axis is None else self.shape[checked_axis(axis, self.shape)]
        return self.sum(axis, keepdims) * (1.0 / count)

    def max(self, axis: int) -> Tensor:
        """The greatest along one axis. Only that number (the first, of several equal ones) moves the outcome."""
        axis = checked_axis(axis, self.shape)
        runs = lines(self.data, self.shape, axis)
        peaks = list(map(max, runs))
        positions = lines(list(range(len(self.data))), self.shape, axis)
        index = tuple(where[run.index(peak)] for where, run, peak in zip(positions, runs, peaks, strict=True))
        shape = self.shape[:axis] + self.shape[axis + 1 :]
        return record_operation(peaks, shape, (self,), lambda g: (scatter_add(g, index, len(self.data)),))

    # ------------------------------------------------------------------ rearranging

    def reshape(self, *shape: int) -> Tensor:
        """The same numbers in the same order under other sides; one side may be -1: whatever is left."""
        if shape.count(-1) == 1:
            rest = -math.prod(shape)
            shape = tuple(len(self.data) // rest if size == -1 and rest else size for size in shape)
        if math.prod(shape) != len(self.data):
            raise ValueError(f"shape {self.shape} holds {len(self.data)} numbers and cannot become {shape}")
        return record_operation(self.data, shape, (self,), lambda g: (g,))

    def expand(self, *shape: int) -> Tensor:
        """Repeat along new axes in front, and along axes of size 1, until the shape is `shape`."""
        if broadcast_shape(self.shape, shape) != shape:
            raise ValueError(f"shape {self.shape} does not expand to {shape}")
        return record_operation(
            expand(self.data, self.shape, shape), shape, (self,), lambda g: (fold(g, shape, self.shape),)
        )

    def permute(self, *axes: int) -> Tensor:
        """Turn the axes round: axis k of the result is axis axes[k] of this tensor."""
        order = tuple(checked_axis(axis, self.shape) for axis in axes)
        if sorted(order) != list(range(len(self.shape))):
            raise ValueError(f"permute of shape {self.shape} needs each of its {len(self.shape)} axes once, not {axes}")
        shape = tuple(self.shape[axis] for axis in order)
        inverse = sorted(range(len(order)), key=order.__getitem__)

        def turned(data: list[float], old: Shape, new: Shape, axes: Sequence[int]) -> list[float]:
            strides = strides_of(old)
            return read_strided(data, new, tuple(strides[axis] for axis in axes))

        data = turned(self.data, self.shape, shape, order)
        return record_operation(data, shape, (self,), lambda g: (turned(g, shape, self.shape, inverse),))

    def transpose(self, first: int = -2, second: int = -1) -> Tensor:
        """Swap two axes; those of a matrix, unless told otherwise."""
        axes = list(range(len(self.shape)))
        first, second = checked_axis(first, self.shape), checked_axis(second, self.shape)
        axes[first], axes[second] = axes[second], axes[first]
        return self.permute(*axes)

    def __getitem__(self, key: int | slice | tuple[int | slice, ...]) -> Tensor:
        """Cut out: a whole number picks one place along its axis and drops the axis, a slice keeps part of it."""
        keys = key if isinstance(key, tuple) else (key,)
        if len(keys) > len(self.shape):
            raise IndexError(f"{len(keys)} indices for a tensor of shape {self.shape}")
        start, shape, strides = 0, [], []
        for axis, (size, stride) in enumerate(zip(self.shape, strides_of(self.shape), strict=True)):
            wanted = keys[axis] if axis < len(keys) else slice(None)
            if isinstance(wanted, slice):
                chosen = range(size)[wanted]
                start += (chosen.start if len(chosen) else 0) * stride
                shape.append(len(chosen))
                strides.append(chosen.step * stride)
            else:
                if not -size <= wanted < size:
                    raise IndexError(f"index {wanted} on axis {axis} of shape {self.shape}: there are {size} places")
                start += wanted % size * stride
        layout = tuple(shape), tuple(strides), start
        size = len(self.data)
        data = read_strided(self.data, *layout)
        return record_operation(data, tuple(shape), (self,), lambda g: (scatter_add(g, strided_index(*layout), size),))

    # ------------------------------------------------------------------ matrix product

    def __matmul__(self, other: Tensor) -> Tensor:
        """[..., rows, inner] @ [..., inner, columns] → [..., rows, columns]; the axes before broadcast."""
        if len(self.shape) < 2 or len(other.shape) < 2:
            raise ValueError(f"a matrix product needs two axes on both sides, not {self.shape} @ {other.shape}")
        rows, inner = self.shape[-2:]
        inner_too, columns = other.shape[-2:]
        if inner != inner_too:
            raise ValueError(f"{self.shape} @ {other.shape}: inner sizes {inner} and {inner_too} differ")
        batch = broadcast_shape(self.shape[:-2], other.shape[:-2])
        left_shape, right_shape = (*batch, rows, inner), (*batch, inner, columns)
        left = _matrices(expand(self.data, self.shape, left_shape), rows * inner)
        right = _matrices(expand(other.data, other.shape, right_shape), inner * columns)
        data = []
        for a, b in zip(left, right, strict=True):
            data += dot_products(rows_of(a, inner), columns_of(b, columns))

        def rule(gradient: list[float]) -> Gradients:
            to_left, to_right = [], []
            for g, a, b in zip(_matrices(gradient, rows * columns), left, right, strict=True):
                if self.requires_grad:
                    to_left += dot_products(rows_of(g, columns), rows_of(b, columns))
                if other.requires_grad:
                    to_right += dot_products(columns_of(a, inner), columns_of(g, columns))
            return (
                fold(to_left, left_shape, self.shape) if self.requires_grad else None,
                fold(to_right, right_shape, other.shape) if other.requires_grad else None,
            )

        return record_operation(data, (*batch, rows, columns), (self, other), rule)

    # ------------------------------------------------------------------ looking

    def item(self) -> float:
        """The one number of a tensor that holds one. Raises ValueError when it holds more or none."""
        if len(self.data) != 1:
            raise ValueError(f"item() needs a tensor of one number, not of shape {self.shape}")
        return self.data[0]

    def tolist(self) -> list | float:
        """The numbers as lists in lists, as deep as the tensor has axes."""
        nested: list = self.data
        for size in reversed(self.shape[1:]):
            nested = [nested[start : start + size] for start in range(0, len(nested), size or 1)]
        return nested if self.shape else self.data[0]

    def __repr__(self) -> str:
        return f"Tensor({self.tolist()})" if len(self.data) <= 12 else f"Tensor(shape={self.shape})"


# ---------------------------------------------------------------------- how operators are written


def record_operation(data: list[float], shape: Shape, parents: tuple[Tensor, ...], rule: Rule) -> Tensor:
    """The result of an operator, with the note that `backward` will read.

    `rule` takes the gradient of the outcome with respect to the result, and returns it with respect to each parent
    (None for a parent that wants none). It holds on to the lists it needs: an optimizer may have given a parent a new one
    by the time it is asked. Inside `no_grad`, or when no parent wants a gradient, no note is kept.
    """
    result = Tensor(data, shape)
    if records_graph(parents):
        result.requires_grad, result.parents, result.rule = True, parents, rule
    return result


def _pairwise(left: Tensor, right: Tensor | float, function: Callable, to_left: Callable, to_right: Callable) -> Tensor:
    """A function of two numbers, applied to each pair after broadcasting."""
    right = as_tensor(right)
    shape = broadcast_shape(left.shape, right.shape)
    a, b = expand(left.data, left.shape, shape), expand(right.data, right.shape, shape)

    def rule(g: list[float]) -> Gradients:
        return (
            fold(to_left(g, a, b), shape, left.shape) if left.requires_grad else None,
            fold(to_right(g, a, b), shape, right.shape) if right.requires_grad else None,
        )

    return record_operation(list(map(function, a, b)), shape, (left, right), rule)


def _matrices(data: list[float], size: int) -> list[list[float]]:
    return [data[start : start + size] for start in range(0, len(data), size or 1)]


def as_tensor(value: Tensor | float) -> Tensor:
    return value if isinstance(value, Tensor) else Tensor([float(value)], ())
