"""Measure how large attention logits, output logits and the residual stream are, to compare designs of the block."""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from shared.transformer import Block, Decoder


@dataclass(frozen=True)
class Magnitudes:
    """Hold the magnitudes of one forward pass.

    attention_logits  largest q · k · scale of visible pairs in each layer
    residual          largest root mean square of a token in the residual stream: of the embeddings, and after each
                      block
    log_z             largest |log Z| of the output logits, Z = Σ exp(logit)
    """

    attention_logits: Float[Tensor, "layers"]
    residual: Float[Tensor, "states"]
    log_z: Float[Tensor, ""]


@torch.no_grad()
def measure_magnitudes(
    decoder: Decoder, token_ids: Int[Tensor, "batch tokens"], segments: Int[Tensor, "batch tokens"] | None = None
) -> Magnitudes:
    """Return the magnitudes of a decoder on some rows, in evaluation mode. Padding (segment −1) does not count.

    A diverging model gives infinities or NaN, which are returned as they are.
    """
    was_training = decoder.training
    decoder.train(False)
    try:
        x, angles, mask = decoder.block_inputs(decoder.embedding(token_ids), None, segments)
        real = torch.ones_like(token_ids, dtype=torch.bool) if segments is None else segments >= 0
        logits, residual = [], [_largest_rms(x[real])]
        for layer, visible in zip(decoder.blocks, decoder.layer_masks(mask), strict=True):
            block = cast(Block, layer)
            scores = block.attention.scores(block.attention_norm(x), mask=visible, angles=angles)
            logits.append(scores.amax())  # −∞ at pairs that are not visible
            x = block(x, mask=visible, angles=angles)
            residual.append(_largest_rms(x[real]))
        log_z = decoder.output(decoder.norm(x[real])).logsumexp(dim=-1).abs().amax()
    finally:
        decoder.train(was_training)
    return Magnitudes(torch.stack(logits), torch.stack(residual), log_z)


def _largest_rms(tokens: Float[Tensor, "tokens width"]) -> Float[Tensor, ""]:
    return tokens.square().mean(dim=-1).sqrt().amax()
