"""Contexts longer than the trained one: the cross-entropy by position, with and without scaled rotary positions.

A decoder is not trained again for this. The rotary angles have no weights, so that one set of weights can be evaluated
under every scaling of shared/transformer/rotary_scaling.py.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from shared.transformer import (
    Decoder,
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    RotaryScaling,
    YarnScaling,
)

AnyDecoder = TypeVar("AnyDecoder", bound=Decoder)


def published_scalings(factor: float, trained_length: int) -> dict[str, RotaryScaling | None]:
    """Return every scaling with the constants of its publication, for contexts of `factor` times the trained length."""
    return {
        "none": None,
        "position interpolation": LinearScaling(factor),
        "dynamic NTK": DynamicScaling(factor, trained_length),
        "Llama 3": Llama3Scaling(factor, original_context=trained_length),
        "YaRN": YarnScaling(factor, trained_length),
    }


def with_rotary_scaling(decoder: AnyDecoder, scaling: RotaryScaling | None) -> AnyDecoder:
    """Return a decoder that shares the weights of another and computes its rotary positions by `scaling`.

    Raises ValueError for a decoder without rotary positions.
    """
    if decoder.rotary is None:
        raise ValueError("the decoder has learned positions, which no scaling extends; give one with rotary positions")
    # Its initial weights are discarded, and their random numbers should not change later ones.
    with torch.random.fork_rng(devices=[]):
        scaled = type(decoder)(replace(decoder.config, rotary_scaling=scaling))
    scaled.load_state_dict(decoder.state_dict(keep_vars=True), assign=True)
    return scaled.train(decoder.training)


@torch.no_grad()
def cross_entropy_by_position(
    decoder: Decoder, token_ids: Int[Tensor, "rows tokens"], *, batch: int = 8, **inputs: Any
) -> Float[Tensor, "_"]:
    """Return the mean cross-entropy over the rows, in nats, of the tokens 1, 2, …, each given all tokens before it.

    batch   rows per forward pass
    inputs  further arguments of the decoder, the same for every row
    """
    device, total = decoder.embedding.weight.device, torch.zeros(token_ids.shape[1] - 1, dtype=torch.float64)
    for rows in token_ids.split(batch):
        logits = decoder(rows.to(device), **inputs)[:, :-1].float()
        losses = F.cross_entropy(logits.transpose(1, 2), rows[:, 1:].to(device), reduction="none")
        total += losses.double().sum(0).cpu()
    return (total / len(token_ids)).float()


def cross_entropy_by_length(
    decoder: Decoder,
    token_ids: Int[Tensor, "rows tokens"],
    trained_length: int,
    scalings: Mapping[str, RotaryScaling | None],
    *,
    batch: int = 8,
) -> dict[str, list[float]]:
    """Return, for each scaling, the mean cross-entropy in nats at 1, 2, … times the trained length.

    Entry k is the mean over the positions from k · trained_length to (k + 1) · trained_length − 1, without position 0,
    which has no context. `exp` of it is the perplexity. Tokens after the last whole multiple are not counted.

    Raises ValueError when the rows are shorter than the trained length, or as `with_rotary_scaling` does.
    """
    multiples = token_ids.shape[1] // trained_length
    if multiples < 1:
        raise ValueError(
            f"rows of {token_ids.shape[1]} tokens are shorter than the trained length of {trained_length}; give longer "
            "ones"
        )
    result = {}
    for name, scaling in scalings.items():
        losses = cross_entropy_by_position(with_rotary_scaling(decoder, scaling), token_ids, batch=batch)
        bounds = [0, *(k * trained_length - 1 for k in range(1, multiples + 1))]
        result[name] = [losses[start:end].mean().item() for start, end in pairwise(bounds)]
    return result
