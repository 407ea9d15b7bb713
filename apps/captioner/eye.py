"""Lesson 1's Vision Transformer with dropout, which its paper's larger runs use and lesson 1's small ones do not need."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from apps.captioner.config import EyeConfig
from lessons.lesson_01_vit.model import VisionTransformer
from shared.transformer import MLP, Attention, Block


class AttentionWithDropout(Attention):
    """Attention whose result is dropped here and there while training; the weights and their names are the same."""

    def __init__(self, width: int, heads: int, *, bias: bool, dropout: float):
        super().__init__(width, heads, bias=(bias, True))
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "batch tokens width"], **options) -> Float[Tensor, "batch tokens width"]:
        return F.dropout(super().forward(x, **options), self.dropout, self.training)


class Eye(VisionTransformer):
    """A Vision Transformer that drops values where its paper does: of the sum of patches and positions, and of what each linear
    layer gives, but for queries, keys and values (arXiv:2010.11929, appendix B.1).

    Without dropout, and in evaluation mode with it, it is lesson 1's to the bit; weights go from one into the other.
    """

    @staticmethod
    def _block(config: EyeConfig, layer: int) -> Block:
        block = VisionTransformer._block(config, layer)
        block.attention = AttentionWithDropout(config.width, config.heads, bias=config.qkv_bias, dropout=config.dropout)
        block.mlp = MLP(config.width, config.mlp_dim, dropout=config.dropout)
        return block

    def embed_patches(
        self,
        images: Float[Tensor, "batch channels height width_px"],
        hidden: Bool[Tensor, "batch patches"] | None = None,
    ) -> Float[Tensor, "batch patches width"]:
        """Patch tokens that know their position, some of their values dropped while training."""
        return F.dropout(super().embed_patches(images, hidden), self.config.dropout, self.training)
