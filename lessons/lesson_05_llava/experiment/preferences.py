"""The DPO arm: lesson 0's decoder learns to answer in two manners, then to prefer the patient one."""

from dataclasses import replace
from pathlib import Path

import torch

from data.toybox.dialogues import Dialogue, dialogue_at, score_replies
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
from shared.training import RunOptions, curve_from_history

TEST_SEED = 1_000


def train_preferences(
    *,
    seed: int,
    data: str,
    device: str,
    folder: Path,
    resume: bool,
    steps: int,
    preference_steps: int,
    dialogues: int = 9600,
    pairs: int = 800,
    beta: float = 0.1,
    anchor: float = 1.0,
    preference_rate: float = 2e-4,
    held_out: int = 150,
) -> dict:
    """Fine-tune lesson 0's decoder on answers, then on preferences; measure manner and correctness before and after.

    All measurements are on scenes with a held-out combination of color and shape.

    anchor  weight of the cross-entropy of preferred answers; 0 is DPO as published
    (data is ignored: the decoder was trained on the toy world)
    """
    run = RunOptions(resume=resume, device=device)
    torch.manual_seed(seed)
    model, tokenizer = load_language_model()
    model.requires_grad_(True)
    template = ChatTemplate(tokenizer)
    # The pairs are other questions than those whose answers were imitated.
    training = [dialogue_at("train", seed, number) for number in range(dialogues + pairs)]
    tests = [dialogue_at("test", TEST_SEED, number) for number in range(held_out)]
    test_pairs = pairs_of(template, tests)
    conversations = [
        question_and_answer(template, each.question, each.answer_to_imitate(number))
        for number, each in enumerate(training[:dialogues])
    ]
    first = replace(run, folder=folder / "answers", label="dpo, answers")
    train_on_conversations(model, conversations, SupervisedRecipe(steps), seed=seed, run=first)
    before = measure(model, template, tests, test_pairs)
    result = train_on_preferences(
        model,
        pairs_of(template, training[dialogues:]),
        PreferenceRecipe(preference_steps, learning_rate=preference_rate, beta=beta, anchor=anchor),
        seed=seed,
        run=replace(run, folder=folder / "preferences", label="dpo, preferences"),
    )
    after = measure(model, template, tests, test_pairs)
    measured = {f"{name}_before": value for name, value in before.items()}
    measured |= {f"{name}_after": value for name, value in after.items()}
    return measured | {
        "margin_gained": after["lead"] - before["lead"],
        "loss_curve": curve_from_history(result.history, "loss"),
        "reward_margin_curve": curve_from_history(result.history, "reward_margin"),
    }


def pairs_of(template: ChatTemplate, dialogues: list[Dialogue]) -> PreferencePairs:
    """Encode dialogues as preference pairs: the patient answer is preferred to the blunt one."""
    return preference_pairs(template, [(each.question, each.patient, each.blunt) for each in dialogues])


def measure(model: LanguageModel, template: ChatTemplate, dialogues: list[Dialogue], pairs: PreferencePairs) -> dict:
    """Return manner, correctness and preference on dialogues, and the first eight replies."""
    replies = answer_questions(model, template, [each.question for each in dialogues])
    return score_replies(replies, dialogues) | preference_lead(model, pairs) | {"replies": replies[:8]}
