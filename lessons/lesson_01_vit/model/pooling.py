"""Many tokens become one vector: three ways to ask a Vision Transformer what it saw as a whole."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shared.transformer import MLP, Attention


def class_pooling(tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch width"]:
    """The class token, which collected what the head needs (arXiv:2010.11929, eq. 4)."""
    return tokens[:, 0]


def mean_pooling(tokens: Float[Tensor, "batch tokens width"], before: int) -> Float[Tensor, "batch width"]:
    """The mean of the patches; the `before` tokens in front of them (class token, registers) do not count."""
    return tokens[:, before:].mean(dim=1)


class AttentionPooling(nn.Module):
    """One learned query looks at all patches, and a feed-forward network thinks about what it saw.

    The "multihead attention pooling" head of arXiv:2106.04560, section 3.2, which SigLIP kept.
    """

    def __init__(self, width: int, heads: int, mlp_dim: int, norm_eps: float = 1e-6):
        super().__init__()
        self.probe = nn.Parameter(torch.randn(width) * width**-0.5)
        self.attention = Attention(width, heads)
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, mlp_dim)

    def forward(self, patches: Float[Tensor, "batch patches width"]) -> Float[Tensor, "batch width"]:
        query = self.probe.expand(patches.shape[0], 1, -1)
        seen = self.attention(query, patches)
        return (seen + self.mlp(self.norm(seen)))[:, 0]
