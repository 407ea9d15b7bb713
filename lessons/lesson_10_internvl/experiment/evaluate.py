"""Evaluation: exact answers about images, cross-entropy of text alone, and learning from examples in the prompt."""

from collections.abc import Sequence
from statistics import fmean

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from data.toybox.conversations import SceneSetting
from data.toybox.heldout import TEST_SEED
from lessons.lesson_00_foundations.decoder.model.evaluation import cross_entropy_bits, episode_accuracies
from lessons.lesson_10_internvl.experiment.base_model import device_of
from lessons.lesson_10_internvl.experiment.data import (
    Document,
    DocumentBatch,
    collate,
    evaluation_images,
    text_corpus,
)
from lessons.lesson_10_internvl.model import InternVL
from shared.tokenizers import Tokenizer

BATCH = 64
EXAMPLES = 7
"""Examples in the prompt of the few-shot test; an episode of the type "choosing" has twelve lines."""


def batch_logits(
    model: InternVL, batch: DocumentBatch, full: Bool[Tensor, "images"] | None = None
) -> Float[Tensor, "rows tokens vocab"]:
    """Return the next-token logits of documents with uncompressed images, or with given tokens per image.

    full  which images get all their visual tokens; the token ids must have as many image tokens
    """
    visual = None
    if len(batch.features):
        everything = torch.ones(len(batch.features), dtype=torch.bool, device=batch.features.device)
        visual = model.tile_encoder.visual_tokens(batch.features, everything if full is None else full).embeddings
    prompt = model.prompt(batch.token_ids, visual, segments=batch.segments)
    # Padding is at the ends, where causal attention hides it.
    return model.output(model.hidden_states(embeddings=prompt.embeddings, prompt=prompt))


def exact_rows(logits: Tensor, batch: DocumentBatch) -> Bool[Tensor, "rows"]:
    """Return whether every token in the loss is the most likely one there, so that greedy decoding writes the same."""
    hits = logits[:, :-1].argmax(dim=-1) == batch.token_ids[:, 1:]
    return (hits | ~batch.loss_mask[:, 1:]).all(dim=1)


@torch.no_grad()
def answered_exactly(model: InternVL, documents: Sequence[Document]) -> list[bool]:
    """Return for each document whether greedy decoding writes its answer."""
    model.eval()
    correct: list[bool] = []
    for first in range(0, len(documents), BATCH):
        batch = to_device(collate(documents[first : first + BATCH]), device_of(model))
        correct += exact_rows(batch_logits(model, batch), batch).tolist()
    return correct


def to_device(batch: DocumentBatch, device: torch.device) -> DocumentBatch:
    """Return a batch on a device."""
    return DocumentBatch(*(tensor.to(device) for tensor in batch))


def image_scores(
    model: InternVL, tokenizer: Tokenizer, split: str, count: int, setting: SceneSetting
) -> dict[str, float]:
    """Return the accuracy on questions about images of a split, over all types as "answers" and by type."""
    device = str(device_of(model))
    documents, types = evaluation_images(tokenizer, split, TEST_SEED, count, setting, device)
    correct = answered_exactly(model, documents)
    by_type = {
        name: fmean(hit for hit, other in zip(correct, types, strict=True) if other == name)
        for name in dict.fromkeys(types)
    }
    return {"answers": fmean(correct)} | {f"answers_{name}": value for name, value in by_type.items()}


def text_scores(model: InternVL, tokenizer: Tokenizer, split: str, documents: int, episodes: int) -> dict[str, float]:
    """Return the cross-entropy of text alone, and accuracies on episodes whose rule only the prompt shows.

    text_bits  bits per token of documents of a split
    few_shot   accuracy after `EXAMPLES` examples, mean over both types of episodes; held-out rules for "test"
    no_shot    the same without an example
    """
    texts = [document.token_ids for document in text_corpus(tokenizer, split, TEST_SEED, documents)]
    bits = cross_entropy_bits(model.language_model, texts) / sum(len(text) - 1 for text in texts)
    accuracies = [
        episode_accuracies(model, tokenizer, kind, TEST_SEED, held_out=split == "test", count=episodes)
        for kind in ("naming", "choosing")
    ]
    return {
        "text_bits": bits,
        "few_shot": fmean(each[EXAMPLES] for each in accuracies),
        "no_shot": fmean(each[0] for each in accuracies),
        "naming": accuracies[0][EXAMPLES],
        "choosing": accuracies[1][EXAMPLES],
    }
