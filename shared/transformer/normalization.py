"""Normalization layers: they hold every token's vector at one scale, so that deep models stay stable.

LayerNorm (arXiv:1607.06450) subtracts the mean, divides by the standard deviation, scales and shifts; PyTorch's own is
used. RMSNorm (arXiv:1910.07467) leaves out the subtraction and the shift; Llama uses it.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import LayerNorm

__all__ = ["LayerNorm", "RMSNorm"]


class RMSNorm(nn.Module):
    """x / √(mean(x²) + eps) · weight over the last axis (arXiv:1910.07467, eq. 4).

    The mean is computed in float32 even when `x` has 16 bits, in which squares of small numbers underflow.
    """

    def __init__(self, width: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape width"]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        normalized = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (normalized * self.weight).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"
