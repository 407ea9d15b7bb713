"""The block of Chameleon: Llama's, with QK-norm and norms before or after its parts (arXiv:2405.09818, section 2.3).

    7B    x + attention(norm(x)),  then x + mlp(norm(x))        dropout in training
    34B   x + norm(attention(x)),  then x + norm(mlp(x))        no dropout needed

With the norms after the parts, each part adds a vector of bounded size, so that the residual stream grows slowly.
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_11_chameleon.model.config import BlockDesign, check_language
from lessons.lesson_11_chameleon.model.head_norm import HeadNorm
from shared.transformer import Attention, Block, DecoderConfig, RMSNorm, Scores, SwiGLU


def chameleon_block(config: DecoderConfig, design: BlockDesign, layer: int) -> Block:
    """Build a block of Chameleon, the same for every layer."""
    query_norm = partial(HeadNorm, config.heads) if design.qk_norm else None
    key_norm = partial(HeadNorm, config.kv_heads) if design.qk_norm else None
    attention = Attention(
        config.width,
        config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        bias=design.attention_bias,
        scores=Scores(query_norm, key_norm, scale=config.score_scale),
    )
    return Block(
        attention,
        SwiGLU(config.width, config.mlp_dim, bias=design.mlp_bias, dropout=design.dropout),
        partial(RMSNorm, config.width, config.norm_eps),
        norms="after" if design.norms_after else "before",
        attention_dropout=design.dropout,
    )


def chameleon_decoder(config: DecoderConfig, design: BlockDesign) -> LanguageModel:
    """Build a decoder of Chameleon's blocks with small random weights, to be trained from scratch.

    Raises ValueError as `check_language` does.
    """
    check_language(config)
    return LanguageModel(config, partial(chameleon_block, config, design))


def residual_bounds(
    first: Float[Tensor, ""], attention_gains: Float[Tensor, "layers width"], mlp_gains: Float[Tensor, "layers width"]
) -> Float[Tensor, "states"]:
    """Return what the root mean square of any token of the residual stream cannot exceed, with norms after the parts.

    first            largest root mean square of a token embedding
    attention_gains  weights of each layer's RMSNorm after attention; `mlp_gains` of those after the MLP

    There are layers + 1 states: the embeddings, and the output of each block. A part adds a vector of root mean square
    at most max|gain|; with norms before the parts, there is no such bound.
    """
    # exercise 11.6: the bound of the residual stream
    added = attention_gains.abs().amax(dim=1) + mlp_gains.abs().amax(dim=1)
    return torch.cat([first[None], first + added.cumsum(dim=0)])
    # end exercise
