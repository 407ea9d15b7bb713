"""Tensors from PyTorch to the pure-Python engine and back, and how far two of them lie apart.

Every lesson holds its reference against its PyTorch version with these.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from shared.stdlib.tensor import Tensor as PlainTensor


def to_stdlib(tensor: Tensor, requires_grad: bool = False) -> PlainTensor:
    """The same numbers in a tensor of the engine."""
    return PlainTensor(tensor.flatten().tolist(), tuple(tensor.shape), requires_grad)


def to_torch(tensor: PlainTensor) -> Tensor:
    """The same numbers in float64."""
    return torch.tensor(tensor.data, dtype=torch.float64).reshape(tensor.shape)


def max_abs_difference(one: Tensor | Sequence[float], other: Tensor) -> float:
    """The largest absolute difference of two numbers in the same place.

    The engine keeps gradients as plain lists: those are compared in reading order. Raises ValueError where there are not
    as many numbers, or two tensors have different shapes, for PyTorch would spread the smaller one over the larger.
    """
    if not isinstance(one, Tensor):
        one, other = torch.tensor(one, dtype=torch.float64), other.flatten()
    if one.shape != other.shape:
        raise ValueError(f"{list(one.shape)} numbers cannot be compared with {list(other.shape)}, place by place")
    return (one.detach().double() - other.detach()).abs().max().item()
