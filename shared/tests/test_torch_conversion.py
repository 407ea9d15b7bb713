"""From PyTorch to the pure-Python engine and back: nothing is lost, and nothing is spread to fit."""

import pytest
import torch

from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch


def test_there_and_back():
    tensor = torch.randn(2, 3, 4, dtype=torch.float64)
    plain = to_stdlib(tensor, requires_grad=True)
    assert plain.shape == (2, 3, 4)
    assert plain.requires_grad
    assert not to_stdlib(tensor).requires_grad
    assert torch.equal(to_torch(plain), tensor)
    assert to_torch(to_stdlib(torch.tensor(1.5))).shape == ()


def test_the_largest_difference_is_found_wherever_it_is():
    tensor = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    other = torch.zeros(2, 3)
    other[1, 0] = -0.25
    assert max_abs_difference(tensor, other) == max_abs_difference(other, tensor) == 0.25
    assert max_abs_difference([0.0, 0.0, 0.0, 0.5, 0.0, 0.0], other) == 0.75


@pytest.mark.parametrize("one", [torch.zeros(3), torch.zeros(1, 3), torch.zeros(3, 2), [0.0], [0.0] * 5])
def test_what_does_not_fit_is_not_compared(one):
    with pytest.raises(ValueError, match="cannot be compared"):
        max_abs_difference(one, torch.zeros(2, 3))
