"""Normalization: keep every token's vector at one size, so that depth neither blows it up nor fades it out.

LayerNorm (arXiv:1607.06450) subtracts the mean, divides by the standard deviation, scales and shifts: PyTorch's own
serves. RMSNorm (arXiv:1910.07467) found that the subtraction and the shift can go; it is what Llama uses.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import LayerNorm

__all__ = ["LayerNorm", "RMSNorm"]


class RMSNorm(nn.Module):
    """x / √(mean(x²) + eps) · weight over the last axis (arXiv:1910.07467, eq. 4).

    The mean is taken in float32 even when `x` is half as wide: squares of small numbers are lost there first.
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
