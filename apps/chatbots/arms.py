"""The arms of the two chatbots: the expert with its ablations, and the teacher before and after preferences."""

from pathlib import Path

import torch

from apps.chatbots.dialogues import dialogue_at
from apps.chatbots.expert import (
    best_match,
    expert_model,
    expert_tokenizer,
    lessons_from,
    share_right,
    teach_expert,
)
from apps.chatbots.facts import TEXTS, read_exam, read_texts
from apps.chatbots.preferences import pairs_of
from apps.chatbots.teacher import manner, preference, teach_to_answer, teach_to_prefer
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from shared.tokenizers import ChatTemplate
from shared.training import curve_from_history

TEST_SEED = 1_000


def train_expert(
    *, seed: int, data: str, device: str, folder: Path, resume: bool, steps: int, reads: bool = True, **settings
) -> dict:
    """Make an expert of the lesson's own texts; ask it in wordings it has not met, and of what it has only read.

    reads   False leaves the reading out: what is never asked for is then never met
    (data is not used: the texts are the lesson's own)
    """
    lessons = lessons_from(read_texts(TEXTS))
    template = ChatTemplate(expert_tokenizer(lessons))
    torch.manual_seed(seed)
    model = expert_model(template.tokenizer.vocab_size)
    result = teach_expert(
        model, template, lessons, steps=steps, folder=folder, resume=resume, device=device, seed=seed, reads=reads,
        label=folder.name, **settings,
    )  # fmt: skip
    tests = {
        "kept_wordings": lessons.kept_wordings,
        "new_wordings": lessons.new_wordings,
        "read_only": lessons.read_only,
        "exam": read_exam(),
    }
    measured: dict = {name: share_right(model, template, questions) for name, questions in tests.items()}
    for name, questions in tests.items():
        matched = [best_match(question, lessons.read) == answer for question, answer in questions]
        measured[f"{name}_by_matching_words"] = sum(matched) / len(matched)
    return measured | {
        "facts": len(lessons.kept_wordings) + len({answer for _, answer in lessons.read_only}),
        "questions": len(lessons.asked),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "loss_curve": curve_from_history(result.history, "loss"),
    }


def train_teacher(
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
    """Teach lesson 0's decoder to answer, then to prefer patience; measure manner and answers before and after.

    All that is measured is about scenes with a combination that it has never met.

    anchor   0 leaves preferences alone to shape the answers: the ablation
    (data is not used: the decoder knows the toy world)
    """
    torch.manual_seed(seed)
    model, tokenizer = load_language_model()
    model.requires_grad_(True)
    template = ChatTemplate(tokenizer)
    spoken = [dialogue_at("train", seed, number) for number in range(dialogues)]
    # Other questions than those it has imitated.
    compared = [dialogue_at("train", seed, dialogues + number) for number in range(pairs)]
    tests = [dialogue_at("test", TEST_SEED, number) for number in range(held_out)]
    test_pairs = pairs_of(template, tests)
    teach_to_answer(
        model, template, spoken, steps=steps, folder=folder / "answers", resume=resume, device=device, seed=seed
    )
    before = manner(model, template, tests) | preference(model, test_pairs)
    result = teach_to_prefer(
        model, template, compared, steps=preference_steps, folder=folder / "preferences", resume=resume, device=device,
        seed=seed, beta=beta, anchor=anchor, learning_rate=preference_rate,
    )  # fmt: skip
    after = manner(model, template, tests) | preference(model, test_pairs)
    measured = {
        f"{name}_{when}": value for when, said in (("before", before), ("after", after)) for name, value in said.items()
    }
    return measured | {
        "margin_gained": after["lead"] - before["lead"],
        "loss_curve": curve_from_history(result.history, "loss"),
        "reward_margin_curve": curve_from_history(result.history, "reward_margin"),
    }
