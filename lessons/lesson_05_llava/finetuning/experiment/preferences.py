"""The DPO arm: lesson 0's decoder learns to answer in two styles, then to prefer the patient one."""

from dataclasses import dataclass, replace

import torch

from data.toybox.dialogues import Dialogue, dialogue_at, score_replies
from data.toybox.heldout import TEST_SEED
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from shared.course.context import RunContext
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


@dataclass(frozen=True)
class Recipe:
    """The sizes and settings of both training phases.

    dialogues  questions whose answers are imitated
    pairs      other questions, with a preferred and a rejected answer each
    beta       DPO's inverse temperature
    anchor     weight of the cross-entropy of preferred answers; 0 is DPO as published
    """

    dialogues: int = 9600
    pairs: int = 800
    beta: float = 0.1
    anchor: float = 1.0
    preference_rate: float = 2e-4


def train_preferences(
    context: RunContext, *, steps: int, preference_steps: int, held_out: int = 150, **recipe_values
) -> dict:
    """Fine-tune lesson 0's decoder on answers, then on preferences; measure style and accuracy before and after.

    All measurements are on scenes with a held-out combination of color and shape. `recipe_values` are fields of
    `Recipe`. The context's data set is ignored: the decoder was trained on the toy world.
    """
    recipe, seed = Recipe(**recipe_values), context.seed
    run = RunOptions(resume=context.resume, device=context.device)
    torch.manual_seed(seed)
    model, tokenizer = load_language_model()
    model.requires_grad_(True)
    template = ChatTemplate(tokenizer)
    # The preference pairs have other questions than the imitated answers.
    training = [dialogue_at("train", seed, number) for number in range(recipe.dialogues + recipe.pairs)]
    tests = [dialogue_at("test", TEST_SEED, number) for number in range(held_out)]
    test_pairs = pairs_of(template, tests)
    conversations = [
        question_and_answer(template, each.question, each.answer_to_imitate(number))
        for number, each in enumerate(training[: recipe.dialogues])
    ]
    first = replace(run, folder=context.folder / "answers", label="dpo, answers")
    train_on_conversations(model, conversations, SupervisedRecipe(steps), seed=seed, run=first)
    before = measure(model, template, tests, test_pairs)
    result = train_on_preferences(
        model,
        pairs_of(template, training[recipe.dialogues :]),
        PreferenceRecipe(
            preference_steps, learning_rate=recipe.preference_rate, beta=recipe.beta, anchor=recipe.anchor
        ),
        seed=seed,
        run=replace(run, folder=context.folder / "preferences", label="dpo, preferences"),
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
    """Return style, accuracy and preference on dialogues, and the first eight replies."""
    replies = answer_questions(model, template, [each.question for each in dialogues])
    return score_replies(replies, dialogues) | preference_lead(model, pairs) | {"replies": replies[:8]}
