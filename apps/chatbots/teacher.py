"""The patient teacher: lesson 0's decoder, fine-tuned on answers in two manners, then on preferences."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from data.toybox.dialogues import Dialogue, dialogue_at, score_replies
from data.toybox.heldout import TEST_SEED
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from shared.finetuning import (
    PreferencePairs,
    PreferenceRecipe,
    SupervisedRecipe,
    answer_questions,
    preference_lead,
    preference_pairs,
    question_and_answer,
    train_on_conversations,
    train_on_preferences,
)
from shared.tokenizers import ChatTemplate
from shared.training import RunOptions


@dataclass(frozen=True)
class TeacherRecipe:
    """Set both stages of the teacher's training.

    dialogues  number of answers to imitate in the first stage
    pairs      number of preference pairs in the second stage, about other questions
    """

    answers: SupervisedRecipe = field(default_factory=lambda: SupervisedRecipe(steps=300))
    preferences: PreferenceRecipe = field(default_factory=lambda: PreferenceRecipe(steps=40))
    dialogues: int = 9600
    pairs: int = 800


def train_teacher(
    recipe: TeacherRecipe, folder: Path, *, seed: int, run: RunOptions
) -> tuple[LanguageModel, ChatTemplate]:
    """Fine-tune lesson 0's decoder in two stages, whose checkpoints go below `folder`.

    Raise CourseError when lesson 0's checkpoint is missing.
    """
    torch.manual_seed(seed)
    model, tokenizer = load_language_model()
    model.requires_grad_(True)
    template = ChatTemplate(tokenizer)
    dialogues = [dialogue_at("train", seed, number) for number in range(recipe.dialogues + recipe.pairs)]
    conversations = [
        question_and_answer(template, each.question, each.answer_to_imitate(number))
        for number, each in enumerate(dialogues[: recipe.dialogues])
    ]
    first = replace(run, folder=folder / "answers", label="teacher, answers")
    train_on_conversations(model, conversations, recipe.answers, seed=seed, run=first)
    pairs = dialogue_pairs(template, dialogues[recipe.dialogues :])
    second = replace(run, folder=folder / "preferences", label="teacher, preferences")
    train_on_preferences(model, pairs, recipe.preferences, seed=seed, run=second)
    return model, template


def dialogue_pairs(template: ChatTemplate, dialogues: Sequence[Dialogue]) -> PreferencePairs:
    """Encode dialogues as preference pairs: the patient answer is preferred to the blunt one."""
    return preference_pairs(template, [(each.question, each.patient, each.blunt) for each in dialogues])


def evaluate_teacher(model: LanguageModel, template: ChatTemplate, questions: int = 150) -> dict[str, float]:
    """Measure replies about scenes with a held-out combination of color and shape.

    patient  fraction of replies in the patient form
    right    fraction with the correct answer
    lead     mean of log p(patient) − log p(blunt), in nats
    prefers  fraction of questions where that difference is positive
    """
    dialogues = [dialogue_at("test", TEST_SEED, number) for number in range(questions)]
    replies = answer_questions(model, template, [each.question for each in dialogues])
    return score_replies(replies, dialogues) | preference_lead(model, dialogue_pairs(template, dialogues))
