"""The patient teacher: lesson 0's decoder, taught to answer by examples of both manners, then to prefer the patient one."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from apps.chatbots.conversations import ConversationBatches, answers_to, supervised_loss, talk
from apps.chatbots.dialogues import Dialogue, final_answer, is_patient
from apps.chatbots.preferences import (
    Pairs,
    PreferenceBatches,
    pairs_of,
    preference_loss,
    remembered,
)
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from shared.tokenizers import ChatTemplate
from shared.training import RunOptions, TrainingConfig, TrainingResult, train

PATIENT_SHARE = 3
"""Of so many examples to imitate, one is patient: people mostly just answer."""


def teach_to_answer(
    model: LanguageModel,
    template: ChatTemplate,
    dialogues: Sequence[Dialogue],
    *,
    steps: int,
    folder: Path | None,
    resume: bool = False,
    device: str = "cpu",
    seed: int = 0,
    batch_size: int = 32,
    learning_rate: float = 4e-3,
) -> TrainingResult:
    """Supervised fine-tuning on answers of both manners, most of them blunt."""
    examples = [
        talk(template, each.question, each.patient if number % PATIENT_SHARE == 0 else each.blunt)
        for number, each in enumerate(dialogues)
    ]
    config = TrainingConfig(
        steps=steps, learning_rate=learning_rate, optimizer="muon", betas=(0.9, 0.95), warmup_steps=steps // 10, seed=seed,
        log_every=max(1, steps // 20),
    )  # fmt: skip
    batches = ConversationBatches(examples, batch_size=batch_size, seed=seed)
    return train(
        model,
        batches,
        supervised_loss,
        config,
        run=RunOptions(folder=folder, resume=resume, device=device, label="teacher, answers"),
    )


def teach_to_prefer(
    model: LanguageModel,
    template: ChatTemplate,
    dialogues: Sequence[Dialogue],
    *,
    steps: int,
    folder: Path | None,
    resume: bool = False,
    device: str = "cpu",
    seed: int = 0,
    batch_size: int = 16,
    learning_rate: float = 2e-4,
    beta: float = 0.1,
    anchor: float = 1.0,
) -> TrainingResult:
    """Direct preference optimization: patient over blunt. The reference is the model as it comes in.

    anchor   how much the preferred answers are imitated besides (see `preference_loss`); 0 is DPO as published
    """
    pairs = pairs_of(template, dialogues)
    batches = PreferenceBatches(pairs, remembered(model.to(device), pairs), batch_size=batch_size, seed=seed)
    config = TrainingConfig(
        steps=steps, learning_rate=learning_rate, betas=(0.9, 0.98), weight_decay=0.0, warmup_steps=steps // 10, seed=seed,
        log_every=max(1, steps // 20),
    )  # fmt: skip
    loss = partial(preference_loss, beta=beta, anchor=anchor)
    return train(
        model,
        batches,
        loss,
        config,
        run=RunOptions(folder=folder, resume=resume, device=device, label="teacher, preferences"),
    )


def manner(model: LanguageModel, template: ChatTemplate, dialogues: Sequence[Dialogue]) -> dict[str, float | list[str]]:
    """How it answers questions: how often patiently, and how often rightly, whatever the manner."""
    said = answers_to(model, template, [each.question for each in dialogues])
    right = [final_answer(text) == each.answer for text, each in zip(said, dialogues, strict=True)]
    return {
        "patient": sum(map(is_patient, said)) / len(said),
        "right": sum(right) / len(said),
        "said": said[:8],
    }


def preference(model: LanguageModel, pairs: Pairs) -> dict[str, float]:
    """How much likelier the preferred answers are than the rejected: the mean difference of log p, and how often it is positive."""
    said = remembered(model, pairs)
    lead = said[:, 0] - said[:, 1]
    return {"lead": lead.mean().item(), "prefers": (lead > 0).float().mean().item()}
