"""Many dot products at once: the inner loop of this engine, where nearly all the time is spent.

Python has no fast dot product before 3.12, but since 3.8 it has a fast *distance*: `math.dist` runs in C and creates no
object per product. A dot product can be computed from a distance. With u and v scaled to length 1,

    |u - v|² = |u|² + |v|² - 2 u·v = 2 - 2 u·v,      so      x·y = |x| |y| (1 - |u - v|² / 2).

Scaling to length 1 keeps the result accurate. The form a·b = (|a|² + |b|² - |a - b|²) / 2 needs no scaling, but it
subtracts numbers as large as |a|² and |b|². For a long and a short vector (an activation of length 1,000, a gradient
of length 0.001) most of what remains is rounding error. Between unit vectors all terms lie between 0 and 4. So the
error is a few units in the last place of |x| |y|, which is as accurate as a plain sum, at any lengths.
"""

from collections.abc import Sequence
from itertools import repeat
from math import dist, hypot
from operator import mul, truediv

Rows = Sequence[tuple[float, ...]]


def dot_products(left: Rows, right: Rows) -> list[float]:
    """Return the dot product of every row of `left` with every row of `right`.

    left [m, width], right [n, width] → the matrix product left · rightᵀ [m, n], flat, row by row.
    Infinite entries give NaN.
    """
    # Scaling the rows costs about as much as two more rows on either side, so small products are computed directly.
    if len(left) < 4 or len(right) < 4 or len(left[0]) < 8:
        return dot_products_direct(left, right)
    return dot_products_by_distance(left, right)


def dot_products_direct(left: Rows, right: Rows) -> list[float]:
    """Return the same by the definition, term by term. `dot_products_by_distance` is tested against it."""
    return [sum(map(mul, x, y)) for x in left for y in right]


def dot_products_by_distance(left: Rows, right: Rows) -> list[float]:
    """Return the same up to rounding, two to four times as fast from a width of 32 on."""
    right_lengths = [hypot(*y) for y in right]
    right_units = [_normalize(y, length) for y, length in zip(right, right_lengths, strict=True)]
    result: list[float] = []
    for x in left:
        length = hypot(*x)
        unit = _normalize(x, length)
        half = 0.5 * length
        distances = map(dist, repeat(unit), right_units)
        result += [(2.0 - d * d) * half * other for d, other in zip(distances, right_lengths, strict=False)]
    return result


def _normalize(row: tuple[float, ...], length: float) -> tuple[float, ...]:
    # A row of zeros has no direction. It stays as it is: its product is zero times its length of zero.
    return tuple(map(truediv, row, repeat(length))) if length else row
