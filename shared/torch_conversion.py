"""Convert tensors between PyTorch and the pure-Python engine, and compare them.

Every lesson compares its pure-Python reference with its PyTorch model by these functions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from shared.stdlib.tensor import Tensor as PlainTensor


def to_stdlib(tensor: Tensor, requires_grad: bool = False) -> PlainTensor:
    """Return the values as a tensor of the pure-Python engine."""
    return PlainTensor(tensor.flatten().tolist(), tuple(tensor.shape), requires_grad)


def to_torch(tensor: PlainTensor) -> Tensor:
    """Return the values as a PyTorch tensor in float64."""
    return torch.tensor(tensor.data, dtype=torch.float64).reshape(tensor.shape)


def max_abs_difference(first: Tensor | Sequence[float], second: Tensor) -> float:
    """Return the largest absolute difference between corresponding elements.

    The engine stores gradients as flat lists; these are compared in row-major order.

    Raises ValueError when the shapes differ, which PyTorch would otherwise broadcast.
    """
    if not isinstance(first, Tensor):
        first, second = torch.tensor(first, dtype=torch.float64), second.flatten()
    if first.shape != second.shape:
        raise ValueError(
            f"shapes {list(first.shape)} and {list(second.shape)} cannot be compared; expected equal shapes"
        )
    return (first.detach().double() - second.detach()).abs().max().item()
