"""Where a decoder attends: the attention weights of some tokens, averaged over all layers and heads."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from shared.transformer.block import Block
from shared.transformer.decoder import Decoder


@torch.no_grad()
def mean_attention(
    decoder: Decoder, embeddings: Float[Tensor, "tokens width"], *, first_query: int = 0
) -> Float[Tensor, "queries tokens"]:
    """Return each token's attention weights over all tokens, averaged over layers and heads; each row adds up to 1.

    The weights are the softmax probabilities of the forward pass, computed again by their definition: the fused kernels
    of generation never store them. Row i belongs to token `first_query` + i, which predicts the token after it.
    """
    x, angles, mask = decoder.block_inputs(embeddings[None])
    total = x.new_zeros(len(embeddings) - first_query, len(embeddings))
    for layer, visible in zip(decoder.blocks, decoder.layer_masks(mask), strict=True):
        block = cast(Block, layer)
        weights = block.attention.weights(block.attention_norm(x), mask=visible, angles=angles, first_query=first_query)
        total += weights[0].mean(dim=0)
        x = block(x, mask=visible, angles=angles)
    return total / len(decoder.blocks)
