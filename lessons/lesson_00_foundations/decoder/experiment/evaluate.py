"""Evaluation of the part `decoder`: in-context accuracy, int8 weights, and the n-gram baseline."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data.toybox.episodes import EPISODES as EPISODE_TYPES
from lessons.lesson_00_foundations.decoder.experiment.int8 import memory_bytes, quantize_model
from lessons.lesson_00_foundations.decoder.experiment.ngram import KneserNey
from lessons.lesson_00_foundations.decoder.model import LanguageModel, pack_documents
from lessons.lesson_00_foundations.decoder.model.evaluation import (
    best_choosing,
    cross_entropy_bits,
    encode_documents,
    episode_accuracies,
)
from shared.tokenizers import Tokenizer
from shared.transformer import Sampling, generate

SHOTS = (0, 1, 2, 4, 7)
"""Numbers of examples whose accuracy is recorded on its own."""
ORDERS = (4, 6, 8)
"""Orders of the n-gram models."""


class HeldOutText(NamedTuple):
    """Held-out documents as token ids, and their sizes."""

    documents: list[list[int]]
    bytes: int
    tokens: int
    """Number of predicted tokens: all but the first of each document."""

    @classmethod
    def encode(cls, tokenizer: Tokenizer, texts: Sequence[str]) -> "HeldOutText":
        """Encode texts with a tokenizer."""
        documents = encode_documents(tokenizer, texts)
        return cls(documents, sum(len(text.encode()) for text in texts), sum(len(ids) - 1 for ids in documents))


def accuracies_by_examples(model: nn.Module, tokenizer: Tokenizer, seed: int) -> dict[str, float | list[float]]:
    """Return accuracy by the number of examples, for both types of episode, with seen and with held-out rules."""
    measured: dict[str, float | list[float]] = {}
    for episode_type in EPISODE_TYPES:
        for held_out in (False, True):
            name = f"{'held_out' if held_out else 'seen'}_{episode_type}"
            accuracies = episode_accuracies(model, tokenizer, episode_type, seed, held_out=held_out)
            measured[f"{name}_by_shots"] = accuracies
            measured |= {f"{name}_{shots}": accuracies[shots] for shots in SHOTS}
    return measured | {"best_choosing_by_shots": best_choosing(seed)}


def evaluate_int8(model: LanguageModel, tokenizer: Tokenizer, test: HeldOutText) -> dict[str, float | int]:
    """Compare the model with its int8 version: most likely tokens, generated texts, cross-entropy and memory."""
    int8_model, device = quantize_model(model), model.norm.weight.device
    # The prompts are the first third of held-out documents; a text ends with its line, or after 24 tokens.
    prompts = [torch.tensor(ids[: 1 + len(ids) // 3], device=device) for ids in test.documents[:64]]
    stops = [token_id for token_id in range(tokenizer.vocab_size) if b"\n" in tokenizer.decode_bytes([token_id])]
    sampling = Sampling(24, stop_token_ids=stops)
    texts, int8_texts = (generate(decoder, prompts, sampling) for decoder in (model, int8_model))
    packed = pack_documents(test.documents[:100], max(map(len, test.documents)))
    token_ids, segments = (tensor.to(device) for tensor in packed)
    with torch.no_grad():
        top_tokens, int8_top_tokens = (
            decoder(token_ids, segments=segments)[segments >= 0].argmax(-1) for decoder in (model, int8_model)
        )
    return {
        "int8_same_choices": (top_tokens == int8_top_tokens).float().mean().item(),
        "int8_agreement": common_prefix_fraction(texts, int8_texts),
        "int8_bits_per_byte": cross_entropy_bits(int8_model, test.documents) / test.bytes,
        "bytes": memory_bytes(model),
        "int8_bytes": memory_bytes(int8_model),
    }


def common_prefix_fraction(texts: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """Return the fraction of tokens that pairs of texts share before their first difference, over all pairs.

    After the first difference two texts have different contexts, so the rest counts as different.
    """
    same = total = 0
    for text, other in zip(texts, others, strict=True):
        length = min(len(text), len(other))
        equal = text[:length] == other[:length]
        same += int(equal.long().cummin(0).values.sum()) if length else 0
        total += max(len(text), len(other))
    return same / total


def evaluate_ngrams(tokenizer: Tokenizer, texts: Sequence[str], test: HeldOutText) -> dict[str, float | int]:
    """Return bits per byte and perplexity of Kneser–Ney at the order that is best on the held-out text itself.

    That choice favors the n-gram model, and so do its documents: all of them, while the decoder may stop earlier.
    """
    training = encode_documents(tokenizer, texts)
    bits = {
        order: sum(map(KneserNey(training, tokenizer.vocab_size, order=order).document_bits, test.documents))
        for order in ORDERS
    }
    best = min(bits, key=bits.__getitem__)
    return {
        "ngram_order": best,
        "ngram_bits_per_byte": bits[best] / test.bytes,
        "ngram_perplexity": 2 ** (bits[best] / test.tokens),
    }
