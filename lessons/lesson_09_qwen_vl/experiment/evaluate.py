"""Evaluation of readers on clips: exact answers by question type, and the error of reported seconds."""

from collections import defaultdict
from statistics import fmean

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lessons.lesson_09_qwen_vl.experiment.data import SECOND, ClipQuestions
from lessons.lesson_09_qwen_vl.experiment.reader import read_prompt, sequence_ids, text_logits
from lessons.lesson_09_qwen_vl.model import QwenVL
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN

ROWS = 60
WORST_ERROR = 8.0
"""Seconds that count for an answer that is not a number."""


def question_logits(
    model: QwenVL,
    features: Float[Tensor, "batch frames patches width"],
    token_ids: Int[Tensor, "batch text"],
    time_step: float | None,
    begin: int,
) -> Float[Tensor, "batch text vocab"]:
    """Return the logits of the questions and answers about clips."""
    text = token_ids.shape[1]
    ids = sequence_ids(features.shape[1], text, time_step).to(token_ids.device)
    prompt = read_prompt(model, features, token_ids, ids.expand(len(features), -1, -1), begin)
    return text_logits(model, prompt, text)


@torch.no_grad()
def answer_accuracy(
    model: QwenVL, tokenizer: Tokenizer, questions: ClipQuestions, time_step: float | None, device: str
) -> dict[str, float]:
    """Return the accuracy of the first question of each clip, over all types and by type.

    An answer is right when each of its tokens is the most likely one after the true tokens before it, so that greedy
    decoding writes the same. For seconds, "error" is the mean absolute error in seconds.
    """
    model.eval()
    begin = tokenizer.special_tokens[BEGIN_TOKEN]
    hits: dict[str, list[bool]] = defaultdict(list)
    errors: list[float] = []
    for rows in torch.arange(len(questions.token_ids)).split(ROWS):
        token_ids, mask = questions.token_ids[rows], questions.first_mask[rows]
        features = questions.bank.features[questions.bank.index[rows]].to(device)
        predicted = question_logits(model, features, token_ids.to(device), time_step, begin).argmax(dim=-1).cpu()
        for row, right in zip(rows.tolist(), ((predicted == token_ids) | ~mask).all(dim=1).tolist(), strict=True):
            hits[questions.first_types[row]].append(right)
        for row, own in enumerate(mask):
            if questions.first_types[int(rows[row])] == SECOND:
                texts = (tokenizer.decode(ids[row][own].tolist()).strip() for ids in (predicted, token_ids))
                errors.append(seconds_error(*texts))
    measured = {question_type: fmean(values) for question_type, values in hits.items()}
    measured["all"] = fmean(value for values in hits.values() for value in values)
    return measured | ({"error": fmean(errors)} if errors else {})


def seconds_error(answer: str, expected: str) -> float:
    """Return the absolute error of a number in words of digits; `WORST_ERROR` for any other text."""
    return min(abs(float(answer) - float(expected)), WORST_ERROR) if answer.isdecimal() else WORST_ERROR
