"""The assistant that `make serve` starts: whole, right about what it has never met, and a published LLaVA to others."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration

from apps.assistant import config, toy
from apps.assistant.assistant import Assistant
from apps.assistant.checkpoint import CHECKPOINT, FOLDER, make
from apps.assistant.config import CONFIGURATIONS
from data.toybox.heldout import is_held_out
from data.toybox.image import render_image
from data.toybox.questions import question_at
from shared.course.checkpoint import checkpoint_errors


@pytest.fixture(scope="module")
def assistant():
    return Assistant.from_folder(FOLDER)


def test_it_is_what_its_provenance_says():
    assert checkpoint_errors([CHECKPOINT]) == []


def test_it_answers_about_single_things_that_it_has_never_met(assistant):
    drawn = [question_at("test", 77, number, toy.KINDS[number % len(toy.KINDS)], (1, 1)) for number in range(72)]
    assert all(is_held_out(scene) for scene, _ in drawn)
    images = [Image.fromarray(render_image(scene, 32)) for scene, _ in drawn]
    said = [assistant.answer_question(image, question.text) for image, (_, question) in zip(images, drawn, strict=True)]
    right = sum(text == question.answer for text, (_, question) in zip(said, drawn, strict=True))
    wrong_picture = [
        assistant.answer_question(image, question.text)
        for image, (_, question) in zip(images[6:] + images[:6], drawn, strict=True)
    ]
    elsewhere = sum(text == question.answer for text, (_, question) in zip(wrong_picture, drawn, strict=True))
    assert right >= 0.75 * len(drawn) and elsewhere <= 0.5 * len(drawn)


def test_transformers_reads_it_too(assistant):
    theirs = LlavaForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32).eval()
    model, pixels = assistant.model, torch.randn(1, 3, 32, 32)
    tokens = torch.tensor([[5, *[model.image_token_id] * assistant.image_tokens, 7, 9, 11]])
    with torch.no_grad():
        given = theirs(input_ids=tokens, pixel_values=pixels).logits
        torch.testing.assert_close(model(pixels, tokens), given, atol=1e-4, rtol=0)


def test_it_is_made_by_what_makes_it(tmp_path):
    whole = config.load(CONFIGURATIONS / "checkpoint.json")
    stages = tuple(replace(stage, steps=2, warmup_steps=1) for stage in whole.stages)
    measured = make(tmp_path / "made", replace(whole, stages=stages, toy_examples=24))
    assert {"config.json", "model.safetensors", "tokenizer.json", "assistant.json"} <= {
        path.name for path in (tmp_path / "made").iterdir()
    }
    assert Assistant.from_folder(tmp_path / "made").model.feature_layers == (0, -2)
    assert "questions accuracy" in measured and "captions CIDEr" in measured
