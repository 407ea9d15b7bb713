"""Evaluation of language models on the toy world's text: cross-entropy, and accuracy on in-context episodes."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from data.toybox.episodes import LINES, best_guess, episode_at
from lessons.lesson_00_foundations.decoder.model.language_model import LanguageModel, has_previous_token, pack_documents
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN

EPISODES = 200


def encode_documents(tokenizer: Tokenizer, documents: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each document, after the token that begins it."""
    return [[tokenizer.special_tokens[BEGIN_TOKEN], *tokenizer.encode(document)] for document in documents]


@torch.no_grad()
def cross_entropy_bits(model: LanguageModel, documents: Sequence[Sequence[int]]) -> float:
    """Return the summed cross-entropy of the documents' token ids in bits; the first token of each is given."""
    token_ids, segments = pack_documents(documents, max(map(len, documents)))
    device = model.norm.weight.device
    bits = 0.0
    for batch_ids, batch_segments in zip(token_ids.split(32), segments.split(32), strict=True):
        logits = model(batch_ids.to(device), segments=batch_segments.to(device)).cpu()
        predictable = has_previous_token(batch_segments)
        log_probabilities = logits[:, :-1][predictable].double().log_softmax(-1)
        bits -= log_probabilities.gather(1, batch_ids[:, 1:][predictable][:, None]).sum().item() / math.log(2)
    return bits


def episode_accuracies(
    model: nn.Module, tokenizer: Tokenizer, episode_type: str, seed: int, *, held_out: bool, count: int = EPISODES
) -> list[float]:
    """Return the exact-match accuracy of greedy answers by the number of example lines before them: 0, 1, …"""
    rows, answer_spans = [], []
    for number in range(count):
        row, spans = [tokenizer.special_tokens[BEGIN_TOKEN]], []
        for line in episode_at(episode_type, "validation", seed, number, held_out=held_out):
            row += tokenizer.encode(line.prompt)
            answer = tokenizer.encode(f" {line.answer}.\n")
            spans.append((len(row), len(row) + len(answer)))
            row += answer
        rows.append(row)
        answer_spans.append(spans)
    matches = greedy_matches(model, rows)
    return [
        sum(bool(matches[row, slice(*spans[shots])].all()) for row, spans in enumerate(answer_spans)) / count
        for shots in range(LINES[episode_type])
    ]


@torch.no_grad()
def greedy_matches(model: nn.Module, rows: Sequence[Sequence[int]]) -> Bool[Tensor, "rows tokens"]:
    """Return whether each token is the model's most likely next token, given the true tokens before it.

    A span of matches equals what greedy decoding would have written there: as long as every token matches, the next
    one is predicted from the same prefix.
    """
    token_ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    predictions = model(token_ids.to(next(model.parameters()).device)).argmax(-1).cpu()
    matches = torch.zeros_like(token_ids, dtype=torch.bool)
    matches[:, 1:] = predictions[:, :-1] == token_ids[:, 1:]
    return matches


def best_choosing(seed: int) -> list[float]:
    """Return the accuracy of the optimal guess on held-out choosing episodes, by the number of example lines."""
    episodes = [episode_at("choosing", "validation", seed, number, held_out=True) for number in range(EPISODES)]
    return [
        sum(best_guess(lines[:shots], lines[shots]) for lines in episodes) / EPISODES
        for shots in range(LINES["choosing"])
    ]
