"""One vector per image from the tokens of padded or packed rows (masked pooling: arXiv:2307.06304, section 2.1)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lessons.lesson_06_any_resolution.model.config import NaViTConfig
from lessons.lesson_06_any_resolution.model.packing import PatchBatch
from shared.attention import Mask
from shared.transformer import MLP, Attention
from shared.transformer.block import ACTIVATIONS


def mean_per_image(
    tokens: Float[Tensor, "rows tokens width"], image_index: Int[Tensor, "rows tokens"], count: int
) -> Float[Tensor, "{count} width"]:
    """Return the mean of each image's tokens.

    image_index  index of each token's image, from 0 to count − 1; −1 for padding, which belongs to no mean

    The sum is computed in float32; the result has the dtype of `tokens`.
    """
    # exercise 6.10: the mean per image
    inside = image_index >= 0
    index = image_index[inside]
    # In float32: on a GPU, a sum of many tokens in half precision would stop growing.
    wide = tokens[inside].to(torch.promote_types(tokens.dtype, torch.float32))
    sums = wide.new_zeros(count, tokens.shape[-1]).index_add(0, index, wide)
    sizes = index.bincount()  # every image has tokens
    return (sums / sizes[:, None]).to(tokens.dtype)
    # end exercise


class AttentionPooling(nn.Module):
    """Pool each image by cross-attention with one learned query, followed by a residual MLP.

    This is SigLIP's "multihead attention pooling" (arXiv:2106.04560, section 3.2) for rows of several images: a row has
    one query per image, and a query attends to the tokens of its segment.
    """

    def __init__(self, config: NaViTConfig):
        super().__init__()
        self.probe = nn.Parameter(torch.randn(config.width) * config.width**-0.5)
        self.attention = Attention(config.width, config.heads, bias=(config.qkv_bias, True))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config.width, config.mlp_dim, activation=ACTIVATIONS[config.activation])

    def forward(self, tokens: Float[Tensor, "rows tokens width"], batch: PatchBatch) -> Float[Tensor, "images width"]:
        row, segment = batch.places.unbind(-1)
        # As many queries in every row as the fullest row has images; those of no image attend to nothing.
        query_segments = torch.arange(int(segment.max()) + 1, device=tokens.device)[None]
        queries = self.probe.expand(tokens.shape[0], query_segments.shape[1], -1)
        mask = Mask(segment_q=query_segments, segment_k=batch.segments)
        pooled = self.attention(queries, tokens, mask=mask)[row, segment]
        return pooled + self.mlp(self.norm(pooled))
