"""Where the numbers of a box lie in a flat list: shapes, strides, broadcasting.

A tensor of shape (2, 3) keeps its six numbers in one list, row by row. The *stride* of an axis says how far apart
two neighbors along it lie in that list: here (3, 1). Turning axes round, repeating a row, cutting out a slice:
each is nothing but a choice of strides, and `strided_index` turns the choice into positions.
"""

from functools import lru_cache
from itertools import repeat
from math import prod
from operator import itemgetter

Shape = tuple[int, ...]


def strides_of(shape: Shape) -> tuple[int, ...]:
    """How far apart neighbors along each axis lie in the flat list: (2, 3, 4) → (12, 4, 1)."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


# One training step asks for the same few rearrangements thousands of times.
@lru_cache(maxsize=128)
def strided_index(shape: Shape, strides: tuple[int, ...], start: int = 0) -> tuple[int, ...]:
    """Flat positions, in reading order, of a box of `shape` whose neighbors along axis k lie strides[k] apart."""
    index = [start]
    for size, stride in zip(shape, strides, strict=True):
        index = [position + step * stride for position in index for step in range(size)]
    return tuple(index)


@lru_cache(maxsize=128)
def _strided_getter(shape: Shape, strides: tuple[int, ...], start: int) -> itemgetter:
    return itemgetter(*strided_index(shape, strides, start))


def read_strided(data: list[float], shape: Shape, strides: tuple[int, ...], start: int = 0) -> list[float]:
    """The numbers at `strided_index`, picked by one call into C where there is more than one."""
    if prod(shape) < 2:
        return [data[position] for position in strided_index(shape, strides, start)]
    return list(_strided_getter(shape, strides, start)(data))


def broadcast_shape(left: Shape, right: Shape) -> Shape:
    """The shape two tensors share: axes are matched from the right, and a 1 (or a missing axis) stretches.

    Raises ValueError when two sizes differ and neither is 1.
    """
    rank = max(len(left), len(right))
    padded = zip((1,) * (rank - len(left)) + left, (1,) * (rank - len(right)) + right, strict=True)
    shape = []
    for a, b in padded:
        if a != b and 1 not in (a, b):
            raise ValueError(
                f"shapes {left} and {right} do not broadcast: sizes {a} and {b} differ and neither is 1; "
                "reshape one so that, counted from the right, each pair of sizes is equal or holds a 1"
            )
        shape.append(b if a == 1 else a)
    return tuple(shape)


def _stretched_strides(shape: Shape, target: Shape) -> tuple[int, ...]:
    """Strides that read a box of `shape` as if it were `target`: stretching an axis is a stride of 0."""
    missing = len(target) - len(shape)
    strides = (0,) * missing + strides_of(shape)
    sizes = (1,) * missing + shape
    return tuple(0 if size == 1 else stride for size, stride in zip(sizes, strides, strict=True))


def expand(data: list[float], shape: Shape, target: Shape) -> list[float]:
    """Repeat numbers until a box of `shape` fills `target` (which it broadcasts to)."""
    if shape == target:
        return data
    if shape == target[len(target) - len(shape) :]:
        return data * prod(target[: len(target) - len(shape)])
    return read_strided(data, target, _stretched_strides(shape, target))


def fold(data: list[float], target: Shape, shape: Shape) -> list[float]:
    """Undo `expand` for gradients: a number that was used many times receives the sum of what its copies receive."""
    if shape == target:
        return data
    size = prod(shape)
    if shape == target[len(target) - len(shape) :]:
        return [sum(data[first::size]) for first in range(size)]
    return scatter_add(data, strided_index(target, _stretched_strides(shape, target)), size)


def scatter_add(data: list[float], index: tuple[int, ...], size: int) -> list[float]:
    """A list of `size` zeros to which data[i] is added at index[i]: what reading at `index` does, turned round."""
    result = [0.0] * size
    for position, value in zip(index, data, strict=True):
        result[position] += value
    return result


def lines(data: list[float], shape: Shape, axis: int) -> list[list[float]]:
    """The runs of numbers along one axis, in the reading order of the other axes."""
    size, inner = shape[axis], prod(shape[axis + 1 :])
    block = size * inner
    return [
        data[start + offset : start + block : inner]
        for start in range(0, prod(shape), block or 1)
        for offset in range(inner)
    ]


def rows_of(data: list[float], width: int) -> list[tuple[float, ...]]:
    """A flat list cut into tuples of `width`: the rows of a matrix."""
    # The same iterator `width` times: zip draws a whole row from it at each turn.
    return list(zip(*repeat(iter(data), width), strict=True))


def columns_of(data: list[float], width: int) -> list[tuple[float, ...]]:
    """The columns of a matrix whose rows are `width` long."""
    return [tuple(data[column::width]) for column in range(width)]


def checked_axis(axis: int, shape: Shape) -> int:
    """An axis counted from the front, given from either end (-1 is the last). Raises IndexError when there is none."""
    if not -len(shape) <= axis < len(shape):
        raise IndexError(
            f"axis {axis} of a tensor of shape {shape}: expected one from {-len(shape)} to {len(shape) - 1}"
        )
    return axis % len(shape)
