"""Tensors of Python floats, their operators, and the gradient of each operator.

An operator computes the flat list of its result and passes `record_operation` a backward function. That function takes
the gradient of the loss with respect to the result, and returns it with respect to each input.
`autograd.py` combines the backward functions.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence

from shared.stdlib.autograd import BackwardFunction, Gradients, Node, backpropagate, records_graph
from shared.stdlib.dot import dot_products
from shared.stdlib.shapes import (
    Shape,
    broadcast_shape,
    broadcast_to,
    checked_axis,
    chunks_of,
    columns_of,
    read_strided,
    rows_of,
    scatter_add,
    slices_along,
    strided_indices,
    strides_of,
    sum_to_shape,
)


class Tensor(Node):
    """A multi-dimensional array: a flat list of numbers in row-major order, and a shape.

    `grad` is None until `backward` sets it to a flat list beside `data`: the gradient of the loss.
    Raises ValueError when the shape does not fit the number of values.
    """

    __slots__ = ("data", "shape")

    def __init__(self, data: list[float], shape: Shape, requires_grad: bool = False):
        if math.prod(shape) != len(data):
            raise ValueError(f"shape {shape} needs {math.prod(shape)} numbers, got {len(data)}")
        super().__init__(requires_grad)
        self.data = data
        self.shape = shape

    def backward(self) -> None:
        """Compute the gradient of this scalar with respect to every tensor with `requires_grad` that it depends on.

        Gradients are added to what `grad` already holds, so that several losses can share one step.
        Raises ValueError when the tensor is not a scalar, or depends on nothing that requires a gradient.
        """
        if len(self.data) != 1:
            raise ValueError(f"backward needs a scalar, not shape {self.shape}; use sum() or mean() first")
        if not self.requires_grad:
            raise ValueError("this tensor depends on nothing that has requires_grad, so there is no gradient")
        backpropagate(self)

    def __add__(self, other: Tensor | float) -> Tensor:
        return _elementwise(self, other, operator.add, lambda g, a, b: g, lambda g, a, b: g)

    def __sub__(self, other: Tensor | float) -> Tensor:
        return _elementwise(self, other, operator.sub, lambda g, a, b: g, lambda g, a, b: list(map(operator.neg, g)))

    def __mul__(self, other: Tensor | float) -> Tensor:
        return _elementwise(self, other, operator.mul, lambda g, a, b: _products(g, b), lambda g, a, b: _products(g, a))

    def __truediv__(self, other: Tensor | float) -> Tensor:
        return _elementwise(
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
        return self._unary(power, lambda: [exponent * math.pow(x, exponent - 1) for x in data])

    def exp(self) -> Tensor:
        result = list(map(math.exp, self.data))
        return self._unary(result, lambda: result)

    def log(self) -> Tensor:
        data = self.data
        return self._unary(list(map(math.log, data)), lambda: [1.0 / x for x in data])

    def sqrt(self) -> Tensor:
        result = list(map(math.sqrt, self.data))
        return self._unary(result, lambda: [0.5 / root for root in result])

    def tanh(self) -> Tensor:
        result = list(map(math.tanh, self.data))
        return self._unary(result, lambda: [1.0 - y * y for y in result])

    def relu(self) -> Tensor:
        result = [max(x, 0.0) for x in self.data]
        return self._unary(result, lambda: [float(y > 0.0) for y in result])

    def _unary(self, result: list[float], derivatives: Callable[[], list[float]]) -> Tensor:
        """Return a function applied to each number; `derivatives` is called only if a gradient is computed."""
        return record_operation(result, self.shape, (self,), lambda g: (_products(g, derivatives()),))

    def sum(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Sum along one axis, or over all numbers."""
        if axis is None:
            return record_operation([sum(self.data)], (), (self,), lambda g: (g * len(self.data),))
        axis = checked_axis(axis, self.shape)
        reduced = (*self.shape[:axis], 1, *self.shape[axis + 1 :])
        totals = list(map(sum, slices_along(self.data, self.shape, axis)))
        shape = reduced if keepdims else reduced[:axis] + reduced[axis + 1 :]
        return record_operation(totals, shape, (self,), lambda g: (broadcast_to(g, reduced, self.shape),))

    def mean(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Average along one axis, or over all numbers."""
        count = len(self.data) if axis is None else self.shape[checked_axis(axis, self.shape)]
        return self.sum(axis, keepdims) * (1.0 / count)

    def max(self, axis: int) -> Tensor:
        """Return the maximum along one axis. Only that number (the first, if several are equal) gets a gradient."""
        axis = checked_axis(axis, self.shape)
        slices = slices_along(self.data, self.shape, axis)
        maxima = list(map(max, slices))
        positions = slices_along(list(range(len(self.data))), self.shape, axis)
        triples = zip(positions, slices, maxima, strict=True)
        indices = tuple(position[values.index(maximum)] for position, values, maximum in triples)
        shape = self.shape[:axis] + self.shape[axis + 1 :]
        return record_operation(maxima, shape, (self,), lambda g: (scatter_add(g, indices, len(self.data)),))

    def reshape(self, *shape: int) -> Tensor:
        """Return the same numbers in the same order with another shape; one size may be -1 and is inferred."""
        if shape.count(-1) == 1:
            rest = -math.prod(shape)
            shape = tuple(len(self.data) // rest if size == -1 and rest else size for size in shape)
        if math.prod(shape) != len(self.data):
            raise ValueError(f"shape {self.shape} has {len(self.data)} numbers and cannot become {shape}")
        return record_operation(self.data, shape, (self,), lambda g: (g,))

    def expand(self, *shape: int) -> Tensor:
        """Repeat the numbers along new axes in front and along axes of size 1, up to `shape`."""
        if broadcast_shape(self.shape, shape) != shape:
            raise ValueError(f"shape {self.shape} does not expand to {shape}")
        data = broadcast_to(self.data, self.shape, shape)
        return record_operation(data, shape, (self,), lambda g: (sum_to_shape(g, shape, self.shape),))

    def permute(self, *axes: int) -> Tensor:
        """Reorder the axes: axis k of the result is axis axes[k] of this tensor."""
        order = tuple(checked_axis(axis, self.shape) for axis in axes)
        if sorted(order) != list(range(len(self.shape))):
            raise ValueError(f"permute of shape {self.shape} needs each of its {len(self.shape)} axes once, not {axes}")
        shape = tuple(self.shape[axis] for axis in order)
        inverse = sorted(range(len(order)), key=order.__getitem__)

        def permuted(data: list[float], old: Shape, new: Shape, axes: Sequence[int]) -> list[float]:
            strides = strides_of(old)
            return read_strided(data, new, tuple(strides[axis] for axis in axes))

        data = permuted(self.data, self.shape, shape, order)
        return record_operation(data, shape, (self,), lambda g: (permuted(g, shape, self.shape, inverse),))

    def transpose(self, first: int = -2, second: int = -1) -> Tensor:
        """Swap two axes; by default the last two."""
        axes = list(range(len(self.shape)))
        first, second = checked_axis(first, self.shape), checked_axis(second, self.shape)
        axes[first], axes[second] = axes[second], axes[first]
        return self.permute(*axes)

    def __getitem__(self, key: int | slice | tuple[int | slice, ...]) -> Tensor:
        """Index or slice: an integer selects one place on its axis and drops the axis, a slice keeps part of it."""
        keys = key if isinstance(key, tuple) else (key,)
        if len(keys) > len(self.shape):
            raise IndexError(f"{len(keys)} indices for a tensor of shape {self.shape}")
        start, shape, strides = 0, [], []
        for axis, (size, stride) in enumerate(zip(self.shape, strides_of(self.shape), strict=True)):
            index = keys[axis] if axis < len(keys) else slice(None)
            if isinstance(index, slice):
                places = range(size)[index]
                start += (places.start if len(places) else 0) * stride
                shape.append(len(places))
                strides.append(places.step * stride)
            else:
                if not -size <= index < size:
                    raise IndexError(f"index {index} on axis {axis} of shape {self.shape}: there are {size} places")
                start += index % size * stride
        layout = tuple(shape), tuple(strides), start
        size = len(self.data)
        data = read_strided(self.data, *layout)
        return record_operation(
            data, tuple(shape), (self,), lambda g: (scatter_add(g, strided_indices(*layout), size),)
        )

    def __matmul__(self, other: Tensor) -> Tensor:
        """[..., rows, inner] @ [..., inner, columns] → [..., rows, columns]; the axes before broadcast."""
        if len(self.shape) < 2 or len(other.shape) < 2:
            raise ValueError(f"a matrix product needs two axes on both sides, not {self.shape} @ {other.shape}")
        rows, inner = self.shape[-2:]
        inner_right, columns = other.shape[-2:]
        if inner != inner_right:
            raise ValueError(f"{self.shape} @ {other.shape}: inner sizes {inner} and {inner_right} differ")
        batch = broadcast_shape(self.shape[:-2], other.shape[:-2])
        left_shape, right_shape = (*batch, rows, inner), (*batch, inner, columns)
        left = chunks_of(broadcast_to(self.data, self.shape, left_shape), rows * inner)
        right = chunks_of(broadcast_to(other.data, other.shape, right_shape), inner * columns)
        data: list[float] = []
        for a, b in zip(left, right, strict=True):
            data += dot_products(rows_of(a, inner), columns_of(b, columns))

        def backward(gradient: list[float]) -> Gradients:
            to_left: list[float] = []
            to_right: list[float] = []
            for g, a, b in zip(chunks_of(gradient, rows * columns), left, right, strict=True):
                if self.requires_grad:
                    to_left += dot_products(rows_of(g, columns), rows_of(b, columns))
                if other.requires_grad:
                    to_right += dot_products(columns_of(a, inner), columns_of(g, columns))
            return (
                sum_to_shape(to_left, left_shape, self.shape) if self.requires_grad else None,
                sum_to_shape(to_right, right_shape, other.shape) if other.requires_grad else None,
            )

        return record_operation(data, (*batch, rows, columns), (self, other), backward)

    def item(self) -> float:
        """Return the number of a tensor that has one. Raises ValueError when it has more or none."""
        if len(self.data) != 1:
            raise ValueError(f"item() needs a tensor with one number, not shape {self.shape}")
        return self.data[0]

    def tolist(self) -> list | float:
        """Return the numbers as nested lists, as deep as the tensor has axes."""
        nested: list = self.data
        for size in reversed(self.shape[1:]):
            nested = chunks_of(nested, size)
        return nested if self.shape else self.data[0]

    def __repr__(self) -> str:
        return f"Tensor({self.tolist()})" if len(self.data) <= 12 else f"Tensor(shape={self.shape})"


def record_operation(
    data: list[float], shape: Shape, parents: tuple[Tensor, ...], backward_function: BackwardFunction
) -> Tensor:
    """Return the result of an operator, with the backward function that `backward` will call.

    `backward_function` takes the gradient of the loss with respect to the result and returns it with respect to each
    parent (None for a parent that requires none). It must hold the lists that it needs: an optimizer may have replaced
    a parent's `data` before it is called. Inside `no_grad`, or if no parent requires a gradient, it is dropped.
    """
    result = Tensor(data, shape)
    if records_graph(parents):
        result.requires_grad, result.parents, result.backward_function = True, parents, backward_function
    return result


def _elementwise(
    left: Tensor, right: Tensor | float, function: Callable, to_left: Callable, to_right: Callable
) -> Tensor:
    """Apply a function of two numbers to each pair after broadcasting."""
    other = as_tensor(right)
    shape = broadcast_shape(left.shape, other.shape)
    a, b = broadcast_to(left.data, left.shape, shape), broadcast_to(other.data, other.shape, shape)

    def backward(g: list[float]) -> Gradients:
        return (
            sum_to_shape(to_left(g, a, b), shape, left.shape) if left.requires_grad else None,
            sum_to_shape(to_right(g, a, b), shape, other.shape) if other.requires_grad else None,
        )

    return record_operation(list(map(function, a, b)), shape, (left, other), backward)


def _products(left: list[float], right: list[float]) -> list[float]:
    return list(map(operator.mul, left, right))


def as_tensor(value: Tensor | float) -> Tensor:
    """Return a tensor as it is, and a number as a scalar tensor."""
    return value if isinstance(value, Tensor) else Tensor([float(value)], ())
