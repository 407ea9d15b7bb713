"""Test the fast dot product against the definition and exact arithmetic, and in difficult cases."""

import math
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.stdlib.creation import normal
from shared.stdlib.dot import dot_products, dot_products_by_distance, dot_products_direct
from shared.stdlib.shapes import rows_of

EPSILON = 2.0**-52


def drawn(rows: int, width: int, scale: float, seed: int) -> list[tuple[float, ...]]:
    return rows_of(normal((rows, width), scale, Random(seed)).data, width)


def exact_dot(x: tuple[float, ...], y: tuple[float, ...]) -> float:
    return float(sum(Fraction(a) * Fraction(b) for a, b in zip(x, y, strict=True)))


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 70), st.integers(1, 6), st.integers(1, 6), st.integers(-150, 150), st.integers(-150, 150))
def test_error_is_a_few_units_in_the_last_place(width, m, n, power_left, power_right):
    # A length of 10¹⁵⁰ meeting one of 10⁻¹⁵⁰ is where a difference of squared lengths would leave nothing.
    left, right = drawn(m, width, 10.0**power_left, 1), drawn(n, width, 10.0**power_right, 2)
    result = iter(dot_products_by_distance(left, right))
    for x in left:
        for y in right:
            assert abs(next(result) - exact_dot(x, y)) <= 8 * EPSILON * math.hypot(*x) * math.hypot(*y)


@pytest.mark.parametrize("rows,others,width", [(1, 1, 1), (3, 9, 40), (9, 3, 40), (4, 4, 8), (17, 12, 7), (20, 30, 33)])
def test_both_algorithms_agree(rows, others, width):
    left, right = drawn(rows, width, 3.0, 1), drawn(others, width, 0.5, 2)
    expected = dot_products_direct(left, right)
    for result in (dot_products(left, right), dot_products_by_distance(left, right)):
        assert result == pytest.approx(expected, rel=0, abs=1e-13 * width)


def test_order_is_that_of_the_matrix_product():
    left, right = [(1.0, 0.0), (0.0, 1.0), (2.0, 1.0)], [(1.0, 2.0), (3.0, 4.0)]
    for way in (dot_products_direct, dot_products_by_distance):
        assert way(left, right) == pytest.approx([1, 3, 2, 4, 4, 10], abs=1e-14)


def test_rows_of_zeros_and_rows_whose_square_underflows():
    zero, tiny, one = (0.0,) * 9, (1e-300,) * 9, (1.0,) * 9
    result = dot_products_by_distance([zero, tiny, one], [zero, tiny, one])
    assert result == pytest.approx([0, 0, 0, 0, 0, 9e-300, 0, 9e-300, 9], rel=1e-12, abs=0)


def test_product_of_parallel_rows_is_the_squared_length():
    x = drawn(1, 64, 1e3, 1)[0]
    opposite = tuple(-value for value in x)
    square = math.hypot(*x) ** 2
    assert dot_products_by_distance([x], [x, opposite]) == pytest.approx([square, -square], rel=1e-14)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_propagate(bad):
    rows = [(bad, *([1.0] * 9)), *drawn(4, 10, 1.0, 1)]
    result = dot_products_by_distance(rows, drawn(5, 10, 1.0, 2))
    assert all(map(math.isnan, result[:5])) and all(map(math.isfinite, result[5:]))
