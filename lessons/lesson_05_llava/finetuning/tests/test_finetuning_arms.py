"""The arms of the second part: the distillation loss mixes as its weight states, and both arms measure."""

import pytest
import torch

from lessons.lesson_00_foundations.decoder.model import LanguageModel, next_token_loss
from lessons.lesson_05_llava.finetuning.experiment import distillation, preferences
from shared.course.context import RunContext
from shared.testing import assert_loss_adds_up
from shared.transformer import DecoderConfig


@pytest.fixture
def model() -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(DecoderConfig(300, 24, 1, 2, 2, 32, rotary_base=100.0, tied=True)).eval()


def test_the_student_loss_is_a_weighted_sum(model):
    token_ids = torch.randint(0, model.config.vocab_size, (2, 9))
    segments = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, -1, -1, -1]])
    text_loss = distillation.student_loss(model, (token_ids, segments), None, 0.7, 2.0)
    expected = next_token_loss(model(token_ids, segments=segments), token_ids, segments)
    torch.testing.assert_close(text_loss.mean(), expected)
    itself = distillation.student_loss(model, (token_ids, segments), model, 1.0, 2.0)
    assert itself.total.item() == pytest.approx(0.0, abs=1e-5)
    torch.manual_seed(1)
    teacher = LanguageModel(model.config)
    mixed = distillation.student_loss(model, (token_ids, segments), teacher, 0.25, 2.0)
    distilled = distillation.student_loss(model, (token_ids, segments), teacher, 1.0, 2.0)
    torch.testing.assert_close(mixed.mean(), 0.75 * text_loss.mean() + 0.25 * distilled.mean())
    distilled.total.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert model.embedding.weight.grad.abs().max() > 0


@pytest.mark.parametrize("weight", [0.0, 0.7, 1.0])
def test_student_losses_of_unequal_documents_add_up(model, weight):
    token_ids = torch.randint(0, model.config.vocab_size, (3, 9))
    segments = torch.where(torch.arange(9) < torch.tensor([[3], [9], [5]]), 0, -1)
    torch.manual_seed(1)
    teacher = LanguageModel(model.config)
    assert_loss_adds_up(
        lambda rows: distillation.student_loss(model, (token_ids[rows], segments[rows]), teacher, weight, 2.0), 3
    )


def test_the_dpo_arm_measures_before_and_after(tmp_path):
    context = RunContext(0, "toybox", "cpu", tmp_path / "dpo")
    measured = preferences.train_preferences(context, steps=1, preference_steps=1, dialogues=16, pairs=8, held_out=3)
    assert {"patient_before", "patient_after", "right_before", "right_after", "margin_gained"} <= measured.keys()


@pytest.mark.parametrize("with_teacher", [False, True])
def test_the_distillation_arms_measure(tmp_path, with_teacher):
    context = RunContext(0, "toybox", "cpu", tmp_path / "student")
    measured = distillation.distill(context, steps=1, documents=60, with_teacher=with_teacher)
    assert measured["parameters"] < measured["teacher_parameters"] / 5
    assert measured["bits_per_byte"] > measured["teacher_bits_per_byte"]
