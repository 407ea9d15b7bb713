"""Losses over vision tokens: their weight in training, and DPO on generated images (arXiv:2409.18869, section 2).

A caption has some ten tokens and an image thousands. In pretraining, the loss of vision tokens has the weight 0.5, so
that they do not dominate. After it, images are generated for each prompt and scored, and the best and the worst of them
form a pair for direct preference optimization (arXiv:2305.18290; `shared.finetuning.preference`).
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from shared.finetuning.preference import dpo_loss, response_log_probability
from shared.transformer import Decoder

VISION_WEIGHT = 0.5
"""Weight of the loss of a vision token, relative to one of text."""


def weighted_next_token_loss(
    logits: Float[Tensor, "batch tokens vocab"],
    token_ids: Int[Tensor, "batch tokens"],
    segments: Int[Tensor, "batch tokens"],
    is_vision: Bool[Tensor, "vocab"],
    vision_weight: float,
) -> Float[Tensor, ""]:
    """Return the weighted mean of the cross-entropy of next tokens: Σ w · loss / Σ w.

    segments   document of each token, −1 for padding; the first token of a document has no loss
    is_vision  whether each token of the vocabulary has the weight `vision_weight`; the others have 1
    """
    # exercise 12.7: the weight of vision tokens
    targets = token_ids[:, 1:]
    losses = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), targets.flatten(), reduction="none")
    weights = torch.where(is_vision[targets], vision_weight, 1.0)
    same_document = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] >= 0)
    weights = (weights * same_document).flatten()
    return (weights * losses).sum() / weights.sum()
    # end exercise


class Pairs(NamedTuple):
    """Name the samples of preference pairs.

    prompts    index of each pair's prompt
    preferred  index of the better sample among those of its prompt
    rejected   index of the worse one
    """

    prompts: Int[Tensor, "pairs"]
    preferred: Int[Tensor, "pairs"]
    rejected: Int[Tensor, "pairs"]


def preference_pairs(
    scores: Float[Tensor, "prompts samples"], margin: float
) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"], Int[Tensor, "pairs"]]:
    """Return for each pair its prompt, its best sample and its worst sample, as in `Pairs`.

    A prompt has a pair when the scores of its best and its worst sample differ by more than `margin`; the rest of its
    samples are not used. Among equal scores, the first sample counts.
    """
    # exercise 12.8: preference pairs from scored images
    best, worst = scores.max(dim=1), scores.min(dim=1)
    prompts = (best.values - worst.values > margin).nonzero().squeeze(1)
    return prompts, best.indices[prompts], worst.indices[prompts]
    # end exercise


def choose_pairs(scores: Float[Tensor, "prompts samples"], margin: float = 0.0) -> Pairs:
    """Return the pairs of scored samples. Raises ValueError for a score that is no number, and a negative margin."""
    if not scores.isfinite().all() or margin < 0:
        raise ValueError(f"the margin is {margin}, and scores must be finite numbers; expected a margin of at least 0")
    return Pairs(*preference_pairs(scores, margin))


class Generated(NamedTuple):
    """Hold prompts with the images that were generated after them.

    token_ids  of the prompt, the image and perhaps padding
    segments   0, and −1 for padding
    loss_mask  the tokens that the model chose: codes, and no markers, which constrained decoding dictates
    """

    token_ids: Int[Tensor, "images tokens"]
    segments: Int[Tensor, "images tokens"]
    loss_mask: Bool[Tensor, "images tokens"]


def join_generated(
    prompts: list[Tensor], new_tokens: Int[Tensor, "images new_tokens"], is_code: Bool[Tensor, "vocab"]
) -> Generated:
    """Return prompts and the tokens that were generated after them as rows of one batch.

    Raises ValueError for another number of prompts.
    """
    if len(prompts) != len(new_tokens):
        raise ValueError(f"{len(prompts)} prompts for {len(new_tokens)} generated images; expected one per image")
    rows = [torch.cat([prompt, row]) for prompt, row in zip(prompts, new_tokens, strict=True)]
    token_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=token_ids.device)
    places = torch.arange(token_ids.shape[1], device=token_ids.device)
    real = places < lengths[:, None]
    generated = real & (places >= lengths[:, None] - new_tokens.shape[1])
    return Generated(token_ids, torch.where(real, 0, -1), generated & is_code.to(token_ids.device)[token_ids])


def log_probabilities(decoder: Decoder, images: Generated) -> Float[Tensor, "images"]:
    """Return the log-probability of each image's codes, given its prompt and its earlier tokens."""
    logits = decoder(images.token_ids, segments=images.segments)
    return response_log_probability(logits, images.token_ids, images.loss_mask)


def image_preference_loss(
    decoder: Decoder, reference: Decoder, preferred: Generated, rejected: Generated, *, beta: float, sft_weight: float
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Return DPO's loss, plus `sft_weight` times the mean cross-entropy of the preferred images' codes, and metrics.

    The cross-entropy prevents that both images of a pair become less likely, which DPO alone allows. The metrics are
    those of `shared.finetuning.preference.dpo_loss`.

    Raises ValueError when beta is not positive.
    """
    with torch.no_grad():
        first, second = (log_probabilities(reference, images) for images in (preferred, rejected))
    better, worse = (log_probabilities(decoder, images) for images in (preferred, rejected))
    loss, metrics = dpo_loss(better, worse, first, second, beta)
    cross_entropy = -(better.sum() / preferred.loss_mask.sum())
    return loss + sft_weight * cross_entropy, metrics | {"cross_entropy": cross_entropy.detach()}
