"""Evaluation: the fraction of questions that are answered exactly, by type of input and by type of question."""

from collections import Counter

import torch
from jaxtyping import Bool
from torch import Tensor

from lessons.lesson_08_onevision.experiment.data import (
    FRAME_COUNTS,
    QUESTION_TYPES,
    DataSource,
    Rows,
    encoded_visuals,
    evaluation_rows,
)
from lessons.lesson_08_onevision.model import LlavaOneVision

BATCH = 32


@torch.no_grad()
def answered_exactly(model: LlavaOneVision, rows: Rows, device: str) -> Bool[Tensor, "rows"]:
    """Return for each row whether greedy decoding writes its answers, the end of the turn included.

    All tokens are predicted in one pass from the correct ones before them. Greedy decoding writes an answer exactly if
    every one of its tokens is the most probable one there, so the result is the same.
    """
    model.eval()
    correct = []
    for features, token_ids, mask in zip(*(tensor.split(BATCH) for tensor in rows), strict=True):
        logits = model.logits(token_ids.to(device), encoded_visuals(features.to(device)))
        hits = logits[:, :-1].argmax(dim=-1).cpu() == token_ids[:, 1:]
        correct.append((hits | ~mask[:, 1:]).all(dim=1))
    return torch.cat(correct)


def answer_accuracy(source: DataSource, kind: str, split: str, seed: int, count: int) -> dict[str, float]:
    """Return the accuracy on one type of input: per type of question, and over all questions.

    `commonest` is the accuracy of the most common answer to each text of a question's type.
    """
    sets, questions = evaluation_rows(source, kind, split, seed, count)
    correct = torch.cat([answered_exactly(source.model, rows, source.device) for rows in sets]).tolist()
    measured, commonest = {}, 0
    for name in QUESTION_TYPES[kind]:
        rows = [row for row, question in enumerate(questions) if question.type == name]
        measured[name] = sum(correct[row] for row in rows) / len(rows)
        commonest += Counter(questions[row].answer for row in rows).most_common(1)[0][1]
    return measured | {"all": sum(correct) / len(correct), "commonest": commonest / len(correct)}


def accuracies(source: DataSource, split: str, seed: int, count: int) -> dict[str, float]:
    """Return the accuracies on all types of input as `<type of input>_<name>`, and their mean as `mean`."""
    measured = {
        f"{kind}_{name}": value
        for kind in FRAME_COUNTS
        for name, value in answer_accuracy(source, kind, split, seed, count).items()
    }
    return measured | {"mean": sum(measured[f"{kind}_all"] for kind in FRAME_COUNTS) / len(FRAME_COUNTS)}
