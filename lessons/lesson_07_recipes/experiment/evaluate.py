"""Evaluate a recipe: exact-match accuracy on questions about new scenes."""

import torch

from lessons.lesson_05_llava.model import Llava
from lessons.lesson_07_recipes.experiment.data import EvaluationSet, encode_rows
from shared.tokenizers import Tokenizer

BATCH = 64


@torch.no_grad()
def answer_accuracy(
    model: Llava, tokenizer: Tokenizer, questions: EvaluationSet, image_tokens: int, device: str
) -> dict[str, float]:
    """Return the accuracy of greedy answers over all questions, and per question type.

    One forward pass with the expected answer is enough: greedy decoding writes it, with the end of the line, exactly
    when each of its tokens is the most likely one after the tokens before it.
    """
    model.eval()
    rows = encode_rows(tokenizer, questions.features, questions.turns, image_tokens)
    correct: list[bool] = []
    for index in torch.arange(len(rows.token_ids)).split(BATCH):
        token_ids = rows.token_ids[index].to(device)
        predictions = model.logits(token_ids, rows.features[index].to(device))[:, :-1].argmax(dim=-1)
        is_right = (predictions == token_ids[:, 1:]) | ~rows.answer_mask[index, 1:].to(device)
        correct += is_right.all(dim=1).tolist()
    types = dict.fromkeys(questions.types)
    by_type = {
        name: [right for right, other in zip(correct, questions.types, strict=True) if other == name] for name in types
    }
    return {"all": sum(correct) / len(correct)} | {name: sum(values) / len(values) for name, values in by_type.items()}
