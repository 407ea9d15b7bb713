"""Conversion between PyTorch and the pure-Python engine is exact, and comparison does not broadcast."""

import pytest
import torch

from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch


def test_conversion_in_both_directions_is_exact():
    tensor = torch.randn(2, 3, 4, dtype=torch.float64)
    converted = to_stdlib(tensor, requires_grad=True)
    assert converted.shape == (2, 3, 4)
    assert converted.requires_grad
    assert not to_stdlib(tensor).requires_grad
    assert torch.equal(to_torch(converted), tensor)
    assert to_torch(to_stdlib(torch.tensor(1.5))).shape == ()


def test_the_largest_difference_at_any_place():
    tensor = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    other = torch.zeros(2, 3)
    other[1, 0] = -0.25
    assert max_abs_difference(tensor, other) == max_abs_difference(other, tensor) == 0.25
    assert max_abs_difference([0.0, 0.0, 0.0, 0.5, 0.0, 0.0], other) == 0.75


@pytest.mark.parametrize("first", [torch.zeros(3), torch.zeros(1, 3), torch.zeros(3, 2), [0.0], [0.0] * 5])
def test_different_shapes_are_not_compared(first):
    with pytest.raises(ValueError, match="cannot be compared"):
        max_abs_difference(first, torch.zeros(2, 3))
