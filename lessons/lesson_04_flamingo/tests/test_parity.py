"""Equality with the published class, in both directions, with sizes that all differ.

Every parameter is redrawn first: initially the published gates are zero, and images have no effect.
"""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import IdeficsConfig, IdeficsForVisionText2Text

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_04_flamingo.model import Flamingo, PerceiverResampler, config_mapping, latest_image_index
from shared.errors import CourseError
from shared.testing import redraw_weights, rewrite_config
from shared.transformer import Sampling

VISION = {
    "embed_dim": 20,
    "image_size": 12,
    "patch_size": 3,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "intermediate_size": 28,
}
PERCEIVER = {
    "use_resampler": True,
    "resampler_n_latents": 3,
    "resampler_depth": 2,
    "resampler_n_heads": 3,
    "resampler_head_dim": 7,
}
LANGUAGE = {
    "vocab_size": 37,
    "hidden_size": 24,
    "intermediate_size": 28,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "rms_norm_eps": 1e-3,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
}
IMAGE_TOKEN_ID = 38  # one of the added tokens
CASES = {
    "every block": {"additional_vocab_size": 2},
    "every other block": {"additional_vocab_size": 3, "cross_layer_interval": 2},
    "vector gates": {"additional_vocab_size": 2, "alpha_type": "vector", "cross_layer_interval": 4},
    "norms on queries and keys": {"additional_vocab_size": 2, "qk_layer_norms": True, "norms": True},
    "no added tokens": {"additional_vocab_size": 0, "cross_layer_interval": 2},
    "another activation": {"additional_vocab_size": 2, "activation": "quick_gelu"},
}


def build_published(case):
    settings = dict(CASES[case])
    perceiver = PERCEIVER | {"qk_layer_norms_perceiver": settings.pop("norms", False)}
    vision = VISION | {"hidden_act": settings.pop("activation", "gelu")}
    config = IdeficsConfig(**LANGUAGE, **settings, vision_config=vision, perceiver_config=perceiver, use_resampler=True)
    return redraw_weights(IdeficsForVisionText2Text(config), buffers=True)


def published_logits(published, images, tokens, image_index, segments):
    """Return the published model's logits; its mask states for each token and image whether it attends."""
    image_mask = (image_index[..., None] == torch.arange(images.shape[1])).long()
    with torch.no_grad():
        out = published(
            input_ids=tokens,
            pixel_values=images,
            image_attention_mask=image_mask,
            attention_mask=(segments >= 0).long(),
            position_ids=torch.arange(tokens.shape[1])[None].expand(len(tokens), -1),
        )
    return out.logits


def documents(vocab_size):
    image = IMAGE_TOKEN_ID if vocab_size > IMAGE_TOKEN_ID else 5
    tokens = torch.randint(6, 37, (3, 9))
    for row, places in enumerate(([0, 4], [2], [1, 3])):
        tokens[row, places] = image
    segments = torch.zeros_like(tokens)
    segments[1, 7:] = -1
    segments[2, 5:] = -1
    return tokens, latest_image_index(tokens, segments, image), segments


def assert_same(published, model):
    images = torch.randn(3, 2, 3, 12, 12)
    tokens, image_index, segments = documents(model.language_model.config.vocab_size)
    assert image_index[0].tolist() == [0] * 4 + [1] * 5 and image_index[1].tolist() == [-1, -1, 0, 0, 0, 0, 0, -1, -1]
    expected = published_logits(published, images, tokens, image_index, segments)
    with torch.no_grad():
        visual_tokens = model.encode_images(images)
        logits = model(tokens, visual_tokens, image_index, segments)
        # Exchanged images change the logits.
        assert (model(tokens, visual_tokens.flip(1), image_index, segments) - logits)[segments >= 0].abs().max() > 1e-2
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(logits[segments >= 0], expected[segments >= 0], atol=1e-4, rtol=0)


def load_published(folder):
    published, report = IdeficsForVisionText2Text.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return published.eval()


@pytest.mark.parametrize("case", CASES)
def test_weights_load_in_both_directions(case, tmp_path):
    published = build_published(case)
    published.save_pretrained(tmp_path / "published")
    model = Flamingo.from_pretrained(tmp_path / "published")
    assert_same(published, model)
    model.save_pretrained(tmp_path / "model", added_tokens=CASES[case]["additional_vocab_size"])
    before, after = (load_file(tmp_path / side / "model.safetensors") for side in ("published", "model"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert_same(load_published(tmp_path / "model"), model)


@pytest.mark.parametrize("norms", [False, True])
def test_the_resampler_alone(norms, tmp_path):
    published = build_published("norms on queries and keys" if norms else "every block")
    published.save_pretrained(tmp_path)
    model = Flamingo.from_pretrained(tmp_path).resampler
    assert isinstance(model, PerceiverResampler)
    for patches in (1, 6, 30):
        features = torch.randn(2, patches, 20)
        with torch.no_grad():
            expected = published.model.perceiver_resampler(features)
            torch.testing.assert_close(model(features), expected, atol=1e-5, rtol=0)


def test_generation_equals_the_published_class(tmp_path):
    """Greedy, after a prompt with two images: every new token attends to the second."""
    published = build_published("every other block")
    published.save_pretrained(tmp_path)
    model = Flamingo.from_pretrained(tmp_path)
    images = torch.randn(1, 2, 3, 12, 12)
    tokens = torch.tensor([[1, IMAGE_TOKEN_ID, 9, 12, IMAGE_TOKEN_ID, 7]])
    with torch.no_grad():
        generated = tokens
        for _ in range(7):
            image_index = latest_image_index(generated, torch.zeros_like(generated), IMAGE_TOKEN_ID)
            image_index[:, 5:] = 1  # generated tokens attend to the last image of the prompt
            logits = published_logits(published, images, generated, image_index, torch.zeros_like(generated))
            generated = torch.cat([generated, logits[:, -1:].argmax(-1)], dim=1)
        image_index = latest_image_index(tokens, torch.zeros_like(tokens), IMAGE_TOKEN_ID)
        text = model.generate(list(tokens), model.encode_images(images), list(image_index), Sampling(7))[0]
    assert torch.equal(text, generated[0, 6:])


# ── Published files differ from a fresh save ──────────────────────────────────────────────────────────────────────────


def test_files_and_configs_of_version_4(tmp_path):
    """Read files like those of 2023: `torch_dtype`, no rotary settings, position ids and rotary frequencies."""
    settings = {**LANGUAGE, "additional_vocab_size": 2}
    settings["rope_parameters"] = {"rope_type": "default", "rope_theta": 10_000.0}
    config = IdeficsConfig(**settings, vision_config=VISION, perceiver_config=PERCEIVER, use_resampler=True)
    published = redraw_weights(IdeficsForVisionText2Text(config), buffers=True)
    published.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    for layer in range(4):
        tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        tensors[f"model.gated_cross_attn_layers.{layer}.cross_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, tmp_path / "model.safetensors")

    def age(config):
        for name in ("rope_parameters", "dtype", "alpha_type", "qk_layer_norms", "cross_layer_interval", "hidden_act"):
            del config[name]
        config |= {"torch_dtype": "bfloat16", "transformers_version": "4.31.0"}
        del config["vision_config"]["layer_norm_eps"], config["perceiver_config"]["qk_layer_norms_perceiver"]

    rewrite_config(tmp_path, age)
    assert_same(published, Flamingo.from_pretrained(tmp_path))


def test_a_config_without_any_defaults(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "idefics", "use_resampler": True}))
    model, vision, language, added_tokens = config_mapping.read_idefics(tmp_path)
    published = IdeficsConfig()
    assert (language.width, language.depth, language.mlp_dim, language.vocab_size) == (4096, 32, 11_008, 32_000)
    assert language.norm_eps == published.rms_norm_eps and added_tokens == 0
    assert (vision.width, vision.depth, vision.patch_size, vision.activation) == (768, 32, 14, "gelu")
    assert (model.cross_attention_interval, model.gates, model.qk_norm, model.resampler.latents) == (
        1,
        "scalar",
        False,
        64,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "idefics2"}, "'idefics2'"),
        ({"use_resampler": False}, "no perceiver resampler"),
        ({"alpha_type": "matrix"}, "alpha_type is 'matrix'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    ],
)
def test_another_model_is_refused(change, message, tmp_path):
    build_published("every block").save_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: config.update(change))
    with pytest.raises(CourseError, match=message):
        Flamingo.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "added_tokens", "message"),
    [
        ({"qkv_bias": True}, 2, "qkv_bias True"),
        ({"bias": True}, 2, "bias True"),
        ({"kv_heads": 1}, 2, "kv_heads 1"),
        ({"tied": True}, 2, "tied True"),
        ({}, 65, "added_tokens is 65; expected a part of the vocabulary, 0 to 38 tokens"),
        ({}, -1, "added_tokens is -1"),
    ],
)
def test_a_language_model_that_the_published_class_does_not_have_is_not_written(
    changes, added_tokens, message, tmp_path
):
    build_published("every block").save_pretrained(tmp_path / "published")
    model = Flamingo.from_pretrained(tmp_path / "published")
    model.language_model = LanguageModel(replace(model.language_model.config, **changes))
    with pytest.raises(CourseError, match=message):
        model.save_pretrained(tmp_path / "model", added_tokens=added_tokens)
    assert not (tmp_path / "model").exists()
