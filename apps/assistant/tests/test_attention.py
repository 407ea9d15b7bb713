"""Where an assistant attends in an image, and what it states about itself."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from apps.assistant.assistant import Assistant, make_request
from apps.assistant.attention import visible_region
from apps.assistant.card import QUESTIONS_PER_SAMPLE, TOY_SCOPE, make_card
from apps.assistant.config import CONFIGURATIONS, load
from apps.assistant.model_folder import GenerationSettings, toy_preprocessing
from shared.course.checkpoint import CHECKPOINTS_FOLDER
from shared.serving import Message, UnsupportedRequest
from shared.serving.model_card import AttentiveModel


def weights_by_hand(model, embeddings):
    """Return the mean of softmax(q kᵀ / √d) over layers and heads, with a dense causal mask: [tokens, tokens]."""
    decoder = model.language_model
    x, angles, mask = decoder.block_inputs(embeddings[None])
    later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    layers = []
    for block in decoder.blocks:
        attention, inputs = block.attention, block.attention_norm(x)
        queries, keys = attention._queries_and_keys(inputs, None, angles)
        keys = keys.repeat_interleave(attention.heads // attention.kv_heads, dim=1)
        scores = (queries @ keys.mT / attention.head_dim**0.5).masked_fill(later, -torch.inf)
        layers.append(scores.softmax(-1)[0].mean(0))
        x = block(x, mask=mask, angles=angles)
    return torch.stack(layers).mean(0)


@torch.no_grad()
def test_the_map_holds_the_weights_of_the_tokens_that_predict_the_answer(assistant, noise):
    images = (noise(20, 20), noise(16, 30))
    request = make_request((Message("user", "what is it?", images),))
    answer = "a red star"
    attention = assistant.image_attention(request, answer)

    answer_ids, prompt = assistant.tokenizer.encode(answer), assistant._prompt(request)
    token_ids = [*prompt, *answer_ids]
    (embeddings,) = assistant._embed([request], [token_ids])
    expected = weights_by_hand(assistant.model, embeddings)[len(prompt) - 1 : -1]
    positions = [n for n, token_id in enumerate(token_ids) if token_id == assistant.model.image_token_id]
    expected = expected[:, positions].reshape(len(answer_ids), 2, 2, 2).numpy()  # 2 images of 2 × 2 patches
    assert "".join(attention.tokens) == answer and len(attention.tokens) == len(answer_ids)
    assert len(attention.weights) == 2
    for number, weights in enumerate(attention.weights):
        np.testing.assert_allclose(weights, expected[:, number], rtol=1e-4, atol=1e-6)
    assert 0 < sum(weights.sum() for weights in attention.weights) < len(answer_ids)


@torch.no_grad()
def test_the_map_leaves_out_the_class_token(make_assistant, noise):
    request = make_request((Message("user", "what is it?", (noise(20, 20),)),))
    assistant = make_assistant(keep_class_token=True)
    assert assistant.image_tokens == 5
    (weights,) = assistant.image_attention(request, "red").weights
    assert weights.shape[1:] == (2, 2)
    token_ids = [*assistant._prompt(request), *assistant.tokenizer.encode("red")]
    (embeddings,) = assistant._embed([request], [token_ids])
    expected = weights_by_hand(assistant.model, embeddings)[len(assistant._prompt(request)) - 1]
    first = token_ids.index(assistant.model.image_token_id)
    np.testing.assert_allclose(weights[0].ravel(), expected[first + 1 : first + 5].numpy(), rtol=1e-4, atol=1e-6)


def test_the_region_is_what_the_preprocessing_keeps():
    crop = toy_preprocessing(16)
    assert visible_region(crop, 40, 20) == (0.25, 0.0, 0.75, 1.0)
    assert visible_region(crop, 20, 40) == (0.0, 0.25, 1.0, 0.75)
    assert visible_region(replace(crop, crop=False), 40, 20) == (0.0, 0.0, 1.0, 1.0)
    # An image whose quarters differ: the square that the model receives is the central half.
    image = Image.new("RGB", (64, 16))
    for number, shade in enumerate((10, 90, 170, 250)):
        image.paste((shade,) * 3, (16 * number, 0, 16 * number + 16, 16))
    left, _, right, _ = visible_region(crop, *image.size)
    assert (64 * left, 64 * right) == (24, 40)
    square = crop.square(image)
    assert (square[:, :6] == 90).all() and (square[:, -6:] == 170).all()


def test_requests_without_a_map_are_refused(assistant, make_assistant, noise):
    image = noise(16, 16)
    about = make_request((Message("user", "what is it?", (image,)),))
    for request, answer in (
        (make_request((Message("user", "hello"),)), "red"),
        (about, ""),
        (about, "red " * 200),
        (about, "\ud800"),
    ):
        with pytest.raises(UnsupportedRequest):
            assistant.image_attention(request, answer)
    with pytest.raises(UnsupportedRequest, match="not as one per patch"):
        make_assistant("embedding").image_attention(about, "red")


def test_the_shipped_assistant_states_the_toy_world_and_its_samples_suit_it():
    assistant = Assistant.from_folder(CHECKPOINTS_FOLDER / "lesson_05_llava")
    assert isinstance(assistant, AttentiveModel)
    card = assistant.card
    assert card.scope == TOY_SCOPE and "toy world only" in card.scope and not card.follow_ups
    assert len(card.samples) == 6 and len({sample.description for sample in card.samples}) == 6
    for sample in card.samples:
        assert sample.image.size == (32, 32) and len(set(sample.questions)) == QUESTIONS_PER_SAMPLE
    # Its attention finds the only object of a scene, as it describes it: it is above chance on the object's patches.
    sample = next(each for each in card.samples if " and " not in each.description)
    request = make_request((Message("user", assistant.settings.caption_prompt, (sample.image,)),))
    (weights,) = assistant.image_attention(request, sample.description).weights
    pixels = np.asarray(sample.image).astype(float).reshape(8, 4, 8, 4, 3)
    occupied = pixels.std(axis=(1, 3)).max(axis=-1) > 20
    assert weights[:, occupied].sum(-1).mean() > 2 * occupied.mean() * weights.sum((1, 2)).mean()


def test_the_scope_follows_the_training_data(tmp_path, assistant):
    debug = load(CONFIGURATIONS / "debug.json")
    assert make_card(debug.data_names, 32).scope == TOY_SCOPE
    own = debug.with_data("/home/someone/photos/mine.json")
    scope = make_card(own.data_names, 32).scope
    assert "mine.json" in scope and "someone" not in scope and "toy world" not in scope
    mixed = make_card(("toy:captions", "mine.json"), 32)
    assert "mine.json and the toy world" in mixed.scope and not mixed.samples and mixed.follow_ups
    assert "not recorded" in make_card((), 32).scope
    # The names are stored with the model.
    saved = Assistant(assistant.model, assistant.tokenizer, assistant.preprocessing, assistant.settings)
    saved.settings = GenerationSettings(120, "what is it?", ("mine.json",))
    saved.save(tmp_path)
    assert json.loads((tmp_path / "assistant.json").read_text())["training_data"] == ["mine.json"]
    assert "mine.json" in Assistant.from_folder(tmp_path).card.scope
