"""Shapes, strides and broadcasting of flat lists.

A tensor of shape (2, 3) stores its six numbers in one list, row by row. The *stride* of an axis is the distance in that
list between two neighbors along the axis: here (3, 1). Permuting axes, repeating a row and slicing are each a choice of
strides, and `strided_indices` turns the choice into positions.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import repeat
from math import prod
from operator import itemgetter
from typing import TypeVar

Shape = tuple[int, ...]
T = TypeVar("T")


def strides_of(shape: Shape) -> tuple[int, ...]:
    """Return the stride of each axis: (2, 3, 4) → (12, 4, 1)."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


# One training step uses the same few layouts thousands of times.
@lru_cache(maxsize=128)
def strided_indices(shape: Shape, strides: tuple[int, ...], start: int = 0) -> tuple[int, ...]:
    """Return the flat positions of a tensor of `shape`, row by row, whose neighbors on axis k are strides[k] apart."""
    indices = [start]
    for size, stride in zip(shape, strides, strict=True):
        indices = [position + step * stride for position in indices for step in range(size)]
    return tuple(indices)


@lru_cache(maxsize=128)
def _strided_getter(shape: Shape, strides: tuple[int, ...], start: int) -> itemgetter:
    return itemgetter(*strided_indices(shape, strides, start))


def read_strided(data: list[float], shape: Shape, strides: tuple[int, ...], start: int = 0) -> list[float]:
    """Return the numbers at `strided_indices`; with more than one, by a single call into C."""
    if prod(shape) < 2:
        return [data[position] for position in strided_indices(shape, strides, start)]
    return list(_strided_getter(shape, strides, start)(data))


def broadcast_shape(left: Shape, right: Shape) -> Shape:
    """Return the common shape of two tensors: axes are matched from the right, and a 1 (or a missing axis) stretches.

    Raises ValueError when two sizes differ and neither is 1.
    """
    rank = max(len(left), len(right))
    padded = zip((1,) * (rank - len(left)) + left, (1,) * (rank - len(right)) + right, strict=True)
    shape = []
    for a, b in padded:
        if a != b and 1 not in (a, b):
            raise ValueError(
                f"shapes {left} and {right} do not broadcast: sizes {a} and {b} differ and neither is 1; "
                "reshape one so that, counted from the right, each pair of sizes is equal or contains a 1"
            )
        shape.append(b if a == 1 else a)
    return tuple(shape)


def _broadcast_strides(shape: Shape, target: Shape) -> tuple[int, ...]:
    """Return strides that read a tensor of `shape` as if it had shape `target`: a stretched axis has stride 0."""
    missing = len(target) - len(shape)
    strides = (0,) * missing + strides_of(shape)
    sizes = (1,) * missing + shape
    return tuple(0 if size == 1 else stride for size, stride in zip(sizes, strides, strict=True))


def broadcast_to(data: list[float], shape: Shape, target: Shape) -> list[float]:
    """Repeat the numbers of a tensor of `shape` until they fill `target` (which it broadcasts to)."""
    if shape == target:
        return data
    if shape == target[len(target) - len(shape) :]:
        return data * prod(target[: len(target) - len(shape)])
    return read_strided(data, target, _broadcast_strides(shape, target))


def sum_to_shape(data: list[float], target: Shape, shape: Shape) -> list[float]:
    """Sum a gradient of shape `target` to `shape`: the backward of `broadcast_to`, which sums over all copies."""
    if shape == target:
        return data
    size = prod(shape)
    if shape == target[len(target) - len(shape) :]:
        return [sum(data[first::size]) for first in range(size)]
    return scatter_add(data, strided_indices(target, _broadcast_strides(shape, target)), size)


def scatter_add(data: list[float], indices: Sequence[int], size: int) -> list[float]:
    """Return a list of `size` zeros to which data[i] is added at indices[i]: the backward of reading at `indices`."""
    result = [0.0] * size
    for position, value in zip(indices, data, strict=True):
        result[position] += value
    return result


def slices_along(data: list[T], shape: Shape, axis: int) -> list[list[T]]:
    """Return the one-dimensional slices along an axis, in row-major order of the other axes."""
    size, inner = shape[axis], prod(shape[axis + 1 :])
    block = size * inner
    return [
        data[start + offset : start + block : inner]
        for start in range(0, prod(shape), block or 1)
        for offset in range(inner)
    ]


def chunks_of(data: list[T], size: int) -> list[list[T]]:
    """Return the list cut into lists of length `size`: the matrices of a batch."""
    return [data[start : start + size] for start in range(0, len(data), size or 1)]


def rows_of(data: list[float], width: int) -> list[tuple[float, ...]]:
    """Return the rows of a matrix: a flat list cut into tuples of length `width`."""
    # The same iterator `width` times: zip takes a whole row from it at each step.
    return list(zip(*repeat(iter(data), width), strict=True))


def columns_of(data: list[float], width: int) -> list[tuple[float, ...]]:
    """Return the columns of a matrix with rows of length `width`."""
    return [tuple(data[column::width]) for column in range(width)]


def checked_axis(axis: int, shape: Shape) -> int:
    """Return the axis counted from the front; -1 is the last. Raises IndexError when it does not exist."""
    if not -len(shape) <= axis < len(shape):
        raise IndexError(
            f"axis {axis} of a tensor of shape {shape}: expected one from {-len(shape)} to {len(shape) - 1}"
        )
    return axis % len(shape)
