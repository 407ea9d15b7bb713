"""Many dot products at once: the one loop of this engine where nearly all the time goes.

Python has no fast dot product before 3.12, but since 3.8 it has a fast *distance*: `math.dist` runs in C,
without making an object for every product. A dot product is a distance in disguise. With u and v scaled to length 1,

    |u - v|² = |u|² + |v|² - 2 u·v = 2 - 2 u·v,      so      x·y = |x| |y| (1 - |u - v|² / 2).

Why scale to length 1 first, where a·b = (|a|² + |b|² - |a - b|²) / 2 needs no scaling? That form subtracts numbers as
large as |a|² and |b|². When a long vector meets a short one (an activation of length 1 000, a gradient of length 0.001)
what is left of the short one's share is mostly rounding. Between unit vectors everything that is subtracted lies between 0 and 4,
so the error is a few units in the last place of |x| |y|, which is as good as a plain sum promises, at any lengths.
"""

from collections.abc import Sequence
from itertools import repeat
from math import dist, hypot
from operator import mul, truediv

Rows = Sequence[tuple[float, ...]]


def dot_products(left: Rows, right: Rows) -> list[float]:
    """Every row of `left` times every row of `right`: the matrix product left · rightᵀ, flat, row by row.

    All rows have one common width. Infinite entries come out as NaN.
    """
    # Scaling the rows costs about as much as two more rows on either side, so it must pay for itself.
    if len(left) < 4 or len(right) < 4 or len(left[0]) < 8:
        return dot_products_direct(left, right)
    return dot_products_by_distance(left, right)


def dot_products_direct(left: Rows, right: Rows) -> list[float]:
    """The definition, term by term. It is the measure that `dot_products_by_distance` is held against."""
    return [sum(map(mul, x, y)) for x in left for y in right]


def dot_products_by_distance(left: Rows, right: Rows) -> list[float]:
    """The same numbers to rounding, two to four times as fast from a width of 32 on."""
    right_lengths = [hypot(*y) for y in right]
    right_units = [_scaled_to_one(y, length) for y, length in zip(right, right_lengths, strict=True)]
    result = []
    for x in left:
        length = hypot(*x)
        unit = _scaled_to_one(x, length)
        half = 0.5 * length
        distances = map(dist, repeat(unit), right_units)
        result += [(2.0 - d * d) * half * other for d, other in zip(distances, right_lengths, strict=False)]
    return result


def _scaled_to_one(row: tuple[float, ...], length: float) -> tuple[float, ...]:
    # A row of zeros has no direction; left as it is, its product is zero times its length of zero.
    return tuple(map(truediv, row, repeat(length))) if length else row
