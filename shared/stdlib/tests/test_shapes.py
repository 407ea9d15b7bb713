"""Broadcasting and the layout of flat lists, against PyTorch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.stdlib.shapes import (
    broadcast_shape,
    broadcast_to,
    columns_of,
    rows_of,
    scatter_add,
    slices_along,
    sum_to_shape,
)

sizes = st.lists(st.integers(1, 4), min_size=0, max_size=4)


@st.composite
def shape_pairs(draw):
    """Two shapes that broadcast: one shape, with axes dropped in front or shrunk to 1 on either side."""
    target = draw(sizes)
    pair = []
    for _ in range(2):
        sizes_kept = target[draw(st.integers(0, len(target))) :]
        pair.append(tuple(1 if draw(st.booleans()) else size for size in sizes_kept))
    return tuple(pair)


@settings(deadline=None, derandomize=True)
@given(shape_pairs())
def test_broadcast_shape_equals_pytorch(pair):
    assert broadcast_shape(*pair) == tuple(torch.broadcast_shapes(*pair))


@settings(deadline=None, derandomize=True)
@given(sizes, sizes)
def test_shapes_that_pytorch_rejects_are_rejected(left, right):
    try:
        expected = tuple(torch.broadcast_shapes(left, right))
    except RuntimeError:
        with pytest.raises(ValueError, match="do not broadcast"):
            broadcast_shape(tuple(left), tuple(right))
    else:
        assert broadcast_shape(tuple(left), tuple(right)) == expected


@settings(deadline=None, derandomize=True)
@given(shape_pairs())
def test_broadcast_and_sum_equal_pytorch_expand_and_its_gradient(pair):
    shape, target = pair[0], broadcast_shape(*pair)
    values = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    stretched = values.expand(target)
    weights = torch.randn(target, dtype=torch.float64)
    (stretched * weights).sum().backward()
    assert broadcast_to(values.flatten().tolist(), shape, target) == stretched.flatten().tolist()
    assert sum_to_shape(weights.flatten().tolist(), target, shape) == pytest.approx(
        values.grad.flatten().tolist(), abs=1e-12
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_along_one_axis(axis):
    box = torch.arange(24.0).reshape(2, 3, 4)
    assert (
        slices_along(box.flatten().tolist(), (2, 3, 4), axis)
        == box.movedim(axis, -1).reshape(-1, (2, 3, 4)[axis]).tolist()
    )


def test_rows_and_columns_of_a_matrix():
    data = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert rows_of(data, 3) == [(1, 2, 3), (4, 5, 6)]
    assert columns_of(data, 3) == [(1, 4), (2, 5), (3, 6)]
    with pytest.raises(ValueError):
        rows_of(data, 4)


def test_scatter_add_sums_values_at_one_index():
    assert scatter_add([1.0, 2.0, 4.0], (2, 0, 2), 3) == [2.0, 0.0, 5.0]
    assert math.fsum(scatter_add([1.0] * 7, (1,) * 7, 2)) == 7.0
