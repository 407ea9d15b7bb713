"""The shipped assistant: complete, correct about unseen combinations, and readable by the published class."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration

from apps.assistant import config
from apps.assistant.assistant import Assistant, make_request
from apps.assistant.card import toy_sample
from apps.assistant.checkpoint import CHECKPOINT, FOLDER, answer_accuracies, make
from apps.assistant.config import CONFIGURATIONS
from apps.assistant.toy_files import LEVEL, OBJECTS, TEST_TYPES
from data.toybox.heldout import is_held_out, scene_at
from data.toybox.image import render_image
from data.toybox.language import caption
from data.toybox.questions import question_at
from shared.course.checkpoint import checkpoint_errors, is_stale
from shared.serving import Message

needs_current_checkpoint = pytest.mark.skipif(
    is_stale(CHECKPOINT.name), reason="the checkpoint was trained on an earlier version of the toy world"
)

ATTRIBUTE_TYPES = ("color", "shape", "size", "texture", "place", "existence")


@pytest.fixture(scope="module")
def assistant():
    return Assistant.from_folder(FOLDER)


@needs_current_checkpoint
def test_its_provenance_is_current():
    assert checkpoint_errors([CHECKPOINT]) == []


@needs_current_checkpoint
def test_it_answers_questions_about_single_objects_of_unseen_combinations(assistant):
    items = [
        question_at("test", 77, number, ATTRIBUTE_TYPES[number % len(ATTRIBUTE_TYPES)], (1, 1)) for number in range(72)
    ]
    assert all(is_held_out(scene) for scene, _ in items)
    images = [Image.fromarray(render_image(scene, 32)) for scene, _ in items]
    others = images[6:] + images[:6]
    questions, answers = [question.text for _, question in items], [question.answer for _, question in items]
    correct, correct_for_other_images = (
        sum(text == answer for text, answer in zip(assistant.answer_question(chosen, questions), answers, strict=True))
        for chosen in (images, others)
    )
    assert correct >= 0.85 * len(items) and correct_for_other_images <= 0.5 * len(items)


@needs_current_checkpoint
def test_it_answers_questions_of_all_types_about_unseen_combinations(assistant):
    """Every answer of a type is right equally often, so a model that ignores the image answers about a third."""
    measured = answer_accuracies(assistant, per_type=40, seed=77, combinations=["unseen"])
    assert measured["unseen combinations, 1 to 3 objects"] >= 0.75
    assert measured["unseen combinations, 1 or 2 objects"] >= 0.8


@needs_current_checkpoint
def test_it_describes_up_to_three_objects_of_unseen_combinations(assistant):
    """Every word of a caption must be right; a guesser without the image has no such caption in a thousand."""
    scenes = [scene_at("test", 77, number, OBJECTS) for number in range(30)]
    captions = assistant.caption_image([Image.fromarray(render_image(scene, 32)) for scene in scenes])
    assert sum(text == caption(scene, LEVEL) for text, scene in zip(captions, scenes, strict=True)) >= 18


def test_transformers_computes_the_same_logits(assistant):
    published_model = LlavaForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32).eval()
    model, pixels = assistant.model, torch.randn(1, 3, 32, 32)
    tokens = torch.tensor([[5, *[model.image_token_id] * assistant.image_tokens, 7, 9, 11]])
    with torch.no_grad():
        expected = published_model(input_ids=tokens, pixel_values=pixels).logits
        torch.testing.assert_close(model(pixels, tokens), expected, atol=1e-4, rtol=0)


def test_its_command_writes_such_a_folder(tmp_path):
    configuration = config.load(CONFIGURATIONS / "checkpoint.json")
    stages = tuple(replace(stage, steps=2, warmup_steps=1) for stage in configuration.stages)
    measured = make(tmp_path / "made", replace(configuration, stages=stages, toy_examples=24), per_type=2)
    assert {"config.json", "model.safetensors", "tokenizer.json", "assistant.json"} <= {
        path.name for path in (tmp_path / "made").iterdir()
    }
    assert Assistant.from_folder(tmp_path / "made").model.feature_layers == (-2,)
    rows = [*TEST_TYPES, "1 to 3 objects"]
    assert {f"{split} combinations, {row}" for split in ("seen", "unseen") for row in rows} <= measured.keys()
    assert "captions CIDEr" in measured


@needs_current_checkpoint
def test_the_page_shows_its_answers_about_the_third_sample(assistant):
    page = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+\?) \| (.+) \| (?:correct|wrong).* \|$", page, re.M)
    sample = toy_sample(2, 32)
    assert f"![A{sample.description[1:]}.](figures/sample.png)" in page
    assert assistant.answer_question(sample.image, [question for question, _ in rows]) == [each for _, each in rows]
    assert len(rows) == 7
    request = make_request([Message("user", "how many red objects are there?", (sample.image,))])
    (weights,) = assistant.image_attention(request, "one").weights
    row, column = divmod(int(weights[0].argmax()), weights.shape[-1])
    assert f"While generating “one”, {weights[0].sum():.0%}".replace("%", " %") in page
    assert f"patches is in row {row + 1}, column {column + 1}." in page
