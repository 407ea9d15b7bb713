"""The part of a block that thinks about each token by itself."""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class MLP(nn.Module):
    """down(activation(up(x))): two matrices and a bend between them (arXiv:1706.03762, section 3.3)."""

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
        mlp_dim = F.dropout(self.activation(self.up(x)), self.dropout, self.training)
        return F.dropout(self.down(mlp_dim), self.dropout, self.training)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x)): one matrix opens and closes what the other says (arXiv:2002.05202, eq. 6)."""

    def __init__(self, width: int, mlp_dim: int, *, bias: bool = False):
        super().__init__()
        self.gate = nn.Linear(width, mlp_dim, bias=bias)
        self.up = nn.Linear(width, mlp_dim, bias=bias)
        self.down = nn.Linear(mlp_dim, width, bias=bias)

    def forward(self, x: Float[Tensor, "*batch tokens width"]) -> Float[Tensor, "*batch tokens width"]:
        return self.down(F.silu(self.gate(x)) * self.up(x))
