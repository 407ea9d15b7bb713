"""Evaluate a recipe: accuracy of constrained greedy answers to questions about new scenes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from data.toybox.questions import ANSWERS
from lessons.lesson_05_llava.model import Llava
from lessons.lesson_07_recipes.experiment.data import EvaluationSet, encode_rows
from shared.tokenizers import Tokenizer

BATCH = 64


@torch.no_grad()
def answer_accuracy(
    model: Llava, tokenizer: Tokenizer, questions: EvaluationSet, image_tokens: int, device: str
) -> dict[str, float]:
    """Return the accuracy over all questions ("all") and per question type.

    Answers are decoded greedily among those that the question's type allows. A model that was trained on captions
    alone is thus scored on the content of its answer, and not on whether it writes a description instead.
    """
    model.eval()
    rows = encode_rows(tokenizer, questions.features, questions.turns, image_tokens)
    candidates = {name: answer_token_ids(tokenizer, name) for name in dict.fromkeys(questions.types)}
    correct: dict[str, list[bool]] = {name: [] for name in candidates}
    for index in torch.arange(len(rows.token_ids)).split(BATCH):
        logits = model.logits(rows.token_ids[index].to(device), rows.features[index].to(device)).cpu()
        for place, row in enumerate(index.tolist()):
            positions = rows.answer_mask[row].nonzero().flatten()
            answer = rows.token_ids[row, positions].tolist()
            name = questions.types[row]
            # The logits at a position predict the next token.
            correct[name].append(is_greedy_answer(logits[place, positions - 1], answer, candidates[name]))
    everything = [right for values in correct.values() for right in values]
    return {name: sum(values) / len(values) for name, values in {"all": everything, **correct}.items()}


def answer_token_ids(tokenizer: Tokenizer, question_type: str) -> list[list[int]]:
    """Return the token ids of every answer that a question type allows, with the end of the line."""
    return [tokenizer.encode(f" {answer}\n") for answer in ANSWERS[question_type]]


def is_greedy_answer(
    logits: Float[Tensor, "answer_tokens vocab"], answer: Sequence[int], candidates: Sequence[Sequence[int]]
) -> bool:
    """Return whether greedy decoding among the candidates gives `answer`.

    logits  those that predict each token of the answer, given the tokens before it

    At each step only tokens that continue a candidate are allowed. As long as all tokens match, the next one is
    predicted from the same prefix, so that one forward pass with the expected answer is enough.
    """
    for step, token_id in enumerate(answer):
        allowed = sorted({other[step] for other in candidates if list(other[:step]) == list(answer[:step])})
        if allowed[int(logits[step, allowed].argmax())] != token_id:
            return False
    return True
