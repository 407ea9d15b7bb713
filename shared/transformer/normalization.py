"""Normalization layers: they hold every token's vector at one scale, so that deep models stay stable.

LayerNorm (arXiv:1607.06450) subtracts the mean, divides by the standard deviation, scales and shifts; PyTorch's own is
used. RMSNorm (arXiv:1910.07467) leaves out the subtraction and the shift; Llama uses it.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import LayerNorm

__all__ = ["LayerNorm", "RMSNorm", "rms_norm"]


class RMSNorm(nn.Module):
    """x / √(mean(x²) + eps) · weight over the last axis (arXiv:1910.07467, eq. 4).

    offset  added to the weights, which begin at 1 − offset; with 1 as in Gemma, weight decay pulls the gain to 1 and
            not to 0
    """

    def __init__(self, width: int, eps: float = 1e-6, *, offset: float = 0.0):
        super().__init__()
        self.eps = eps
        self.offset = offset
        self.weight = nn.Parameter(torch.full((width,), 1.0 - offset))

    def forward(self, x: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape width"]:
        return rms_norm(x, self.weight, self.eps, offset=self.offset)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}" + (f", offset={self.offset:g}" if self.offset else "")


def rms_norm(
    x: Float[Tensor, "*shape width"], weight: Float[Tensor, "width"], eps: float, *, offset: float = 0.0
) -> Float[Tensor, "*shape width"]:
    """Return x / √(mean(x²) + eps) · (weight + offset), in the dtype of `x`.

    It is computed in float32 even when `x` has 16 bits, in which squares of small numbers underflow.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    normalized = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    gain = weight.to(wide.dtype) + offset if offset else weight
    return (normalized * gain).to(x.dtype)
