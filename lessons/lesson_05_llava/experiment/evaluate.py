"""Evaluation on held-out combinations: accuracy by question type, and caption metrics of descriptions."""

from collections import Counter

import torch

from lessons.lesson_05_llava.experiment.data import EvaluationQuestions
from lessons.lesson_05_llava.model import Llava
from shared.evaluation import score_captions
from shared.tokenizers import Tokenizer
from shared.transformer import Sampling

MAX_NEW_TOKENS = {"answer": 6, "description": 64}
WRONG_EXAMPLES = 12
"""Wrong answers that are recorded, for the figure."""


@torch.no_grad()
def generate_answers(
    model: Llava, tokenizer: Tokenizer, questions: EvaluationQuestions, device: str, max_new_tokens: int
) -> list[str]:
    """Generate the answer to each question greedily, up to the end of the line."""
    model.eval()
    newlines = [token_id for token_id in range(tokenizer.vocab_size) if b"\n" in tokenizer.decode_bytes([token_id])]
    answers = []
    for rows in torch.arange(len(questions.prompts)).split(64):
        features = [questions.features[row : row + 1].to(device) for row in rows.tolist()]
        prompts = [questions.prompts[row] for row in rows.tolist()]
        for token_ids in model.answer(prompts, features, Sampling(max_new_tokens, stop_token_ids=newlines)):
            answers.append(tokenizer.decode(token_ids.tolist()).split("\n")[0].strip())
    return answers


def answer_accuracy(
    model: Llava,
    tokenizer: Tokenizer,
    questions: EvaluationQuestions,
    device: str,
    name: str,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS["answer"],
) -> dict:
    """Return exact-match accuracy over all questions and by type, some wrong answers, and a baseline.

    The baseline `<name>_commonest` gives every question the most common answer of its type.
    """
    answers = generate_answers(model, tokenizer, questions, device, max_new_tokens)
    correct = [answer == expected for answer, expected in zip(answers, questions.answers, strict=True)]
    measured: dict = {name: sum(correct) / len(correct)}
    commonest = 0
    for question_type in dict.fromkeys(questions.types):
        rows = [row for row, other in enumerate(questions.types) if other == question_type]
        measured[f"{name}_{question_type}"] = sum(correct[row] for row in rows) / len(rows)
        commonest += Counter(questions.answers[row] for row in rows).most_common(1)[0][1]
    wrong = [row for row, is_correct in enumerate(correct) if not is_correct][:WRONG_EXAMPLES]
    return measured | {
        f"{name}_commonest": commonest / len(correct),
        f"{name}_wrong": [[row, questions.questions[row], answers[row], questions.answers[row]] for row in wrong],
    }


def description_scores(model: Llava, tokenizer: Tokenizer, questions: EvaluationQuestions, device: str) -> dict:
    """Return BLEU-4, CIDEr and ROUGE-L of generated descriptions, and the first eight of them."""
    texts = generate_answers(model, tokenizer, questions, device, MAX_NEW_TOKENS["description"])
    scores = score_captions(dict(enumerate(texts)), {row: [text] for row, text in enumerate(questions.answers)})
    names = {"bleu_4": "BLEU-4", "cider": "CIDEr", "rouge_l": "ROUGE-L"}
    return {name: scores[metric] for name, metric in names.items()} | {"descriptions": texts[:8]}
