"""The MLP of a block, applied to each token separately: the plain one and its gated form."""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


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
