"""Accuracy of a decoder's answers to questions about scenes that are given as text."""

from statistics import fmean

from data.toybox.heldout import TEST_SEED
from data.toybox.language import caption
from data.toybox.questions import QUESTION_TYPES, Question, question_at
from data.toybox.scene import Scene
from data.toybox.unanswerable import UNANSWERABLE, unanswerable_at
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_00_foundations.decoder.model.evaluation import greedy_matches
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN

OBJECTS = (1, 3)
SPLITS = {"validation": "seen", "test": "unseen"}
"""Scenes of seen combinations, and scenes with an unseen one."""
CHUNK = 100


def answer_accuracies(
    model: LanguageModel, tokenizer: Tokenizer, *, count: int, seed: int = TEST_SEED
) -> dict[str, float]:
    """Return the accuracy of greedy answers per question type, for scenes of seen and of unseen combinations.

    Each question stands alone after the full caption of its scene. All answers of a type are equally frequent.

    count  number of questions per type and split
    seed   of the scenes; training evaluates on others than the final test does
    """
    accuracies: dict[str, float] = {}
    for split, name in SPLITS.items():
        for question_type in (*QUESTION_TYPES, UNANSWERABLE):
            items = [_question(split, seed, number, question_type) for number in range(count)]
            accuracies[f"{question_type}_{name}"] = _accuracy(model, tokenizer, items)
        accuracies[f"answers_{name}"] = fmean(accuracies[f"{each}_{name}"] for each in QUESTION_TYPES)
    return accuracies


def _question(split: str, seed: int, number: int, question_type: str) -> tuple[Scene, Question]:
    if question_type == UNANSWERABLE:
        return unanswerable_at(split, seed, number, OBJECTS)
    return question_at(split, seed, number, question_type, OBJECTS)


def _accuracy(model: LanguageModel, tokenizer: Tokenizer, items: list[tuple[Scene, Question]]) -> float:
    correct = 0
    for start in range(0, len(items), CHUNK):
        rows, spans = [], []
        for scene, question in items[start : start + CHUNK]:
            prompt = tokenizer.encode(f"{caption(scene, 'places')}.\n{question.text}")
            answer = tokenizer.encode(f" {question.answer}\n")
            rows.append([tokenizer.special_tokens[BEGIN_TOKEN], *prompt, *answer])
            spans.append(slice(len(rows[-1]) - len(answer), len(rows[-1])))
        matches = greedy_matches(model, rows)
        correct += sum(bool(matches[row, span].all()) for row, span in enumerate(spans))
    return correct / len(items)
