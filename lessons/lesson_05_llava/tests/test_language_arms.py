"""The arms that train a language model alone: the distillation loss mixes as its weight says, and both arms measure."""

import pytest
import torch

from lessons.lesson_00_foundations.decoder.model import LanguageModel, next_token_loss
from lessons.lesson_05_llava.experiment import distillation, preferences
from shared.transformer import DecoderConfig

SETTINGS = {"seed": 0, "data": "toybox", "device": "cpu", "resume": False}


@pytest.fixture
def model() -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(DecoderConfig(300, 24, 1, 2, 2, 32, rotary_base=100.0, tied=True)).eval()


def test_the_students_loss(model):
    tokens = torch.randint(0, model.config.vocab_size, (2, 9))
    segments = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, -1, -1, -1]])
    alone = distillation.student_loss(model, (tokens, segments), None, 0.7, 2.0)
    torch.testing.assert_close(alone, next_token_loss(model(tokens, segments=segments), tokens, segments))
    itself = distillation.student_loss(model, (tokens, segments), model, 1.0, 2.0)
    assert itself.item() == pytest.approx(0.0, abs=1e-5)
    torch.manual_seed(1)
    other = LanguageModel(model.config)
    mixed = distillation.student_loss(model, (tokens, segments), other, 0.25, 2.0)
    copied = distillation.student_loss(model, (tokens, segments), other, 1.0, 2.0)
    torch.testing.assert_close(mixed, 0.75 * alone + 0.25 * copied)
    copied.backward()
    assert all(parameter.grad is None for parameter in other.parameters())
    assert model.embedding.weight.grad.abs().max() > 0


def test_the_dpo_arm_measures_before_and_after(tmp_path):
    measured = preferences.train_preferences(
        folder=tmp_path / "dpo", steps=1, preference_steps=1, dialogues=16, pairs=8, held_out=3, **SETTINGS
    )
    assert {"patient_before", "patient_after", "right_before", "right_after", "margin_gained"} <= measured.keys()


@pytest.mark.parametrize("taught", [False, True])
def test_the_distillation_arms_measure(tmp_path, taught):
    measured = distillation.distil(folder=tmp_path / "student", steps=1, documents=60, taught=taught, **SETTINGS)
    assert measured["parameters"] < measured["teacher_parameters"] / 5
    assert measured["bits_per_byte"] > measured["teacher_bits_per_byte"]
