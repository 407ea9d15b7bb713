"""The MLP of a block, applied to each token separately: the plain one and its gated form."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def quick_gelu(x: Tensor) -> Tensor:
    """Return x · sigmoid(1.702 x), a fast approximation of GELU (arXiv:1606.08415, section 2) that CLIP uses."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
}
"""Activations by the names that published configs give them."""


class MLP(nn.Module):
    """down(activation(up(x))): two linear layers with a nonlinearity (arXiv:1706.03762, section 3.3).

    dropout  applied after the activation and to the output
    """

    def __init__(
        self,
        width: int,
        mlp_dim: int,
        *,
        activation: Callable[[Tensor], Tensor] = F.gelu,
        bias: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.up = nn.Linear(width, mlp_dim, bias=bias)
        self.down = nn.Linear(mlp_dim, width, bias=bias)
        self.activation = activation
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "*batch tokens width"]) -> Float[Tensor, "*batch tokens width"]:
        hidden = F.dropout(self.activation(self.up(x)), self.dropout, self.training)
        return F.dropout(self.down(hidden), self.dropout, self.training)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x)): an MLP whose inner features are multiplied by a gate (arXiv:2002.05202, eq. 6)."""

    def __init__(self, width: int, mlp_dim: int, *, bias: bool = False):
        super().__init__()
        self.gate = nn.Linear(width, mlp_dim, bias=bias)
        self.up = nn.Linear(width, mlp_dim, bias=bias)
        self.down = nn.Linear(mlp_dim, width, bias=bias)

    def forward(self, x: Float[Tensor, "*batch tokens width"]) -> Float[Tensor, "*batch tokens width"]:
        return self.down(F.silu(self.gate(x)) * self.up(x))
