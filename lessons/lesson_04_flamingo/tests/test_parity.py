"""Equality with the published class, both ways, in configurations odd enough that nothing is equal by accident.

Every parameter is redrawn at random first: at its initial values the published class has its gates at zero, and no image
has any effect.
"""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import IdeficsConfig, IdeficsForVisionText2Text

from lessons.lesson_04_flamingo.model import Flamingo, PerceiverResampler, config_mapping, latest_image
from shared.errors import CourseError
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
IMAGE = 38  # one of the added tokens
CASES = {
    "every block": {"additional_vocab_size": 2},
    "every other block": {"additional_vocab_size": 3, "cross_layer_interval": 2},
    "vector gates": {"additional_vocab_size": 2, "alpha_type": "vector", "cross_layer_interval": 4},
    "norms on queries and keys": {"additional_vocab_size": 2, "qk_layer_norms": True, "norms": True},
    "no added tokens": {"additional_vocab_size": 0, "cross_layer_interval": 2},
    "another activation": {"additional_vocab_size": 2, "activation": "quick_gelu"},
}


def published(case):
    settings = dict(CASES[case])
    perceiver = PERCEIVER | {"qk_layer_norms_perceiver": settings.pop("norms", False)}
    vision = VISION | {"hidden_act": settings.pop("activation", "gelu")}
    config = IdeficsConfig(**LANGUAGE, **settings, vision_config=vision, perceiver_config=perceiver, use_resampler=True)
    return redrawn(IdeficsForVisionText2Text(config))


def redrawn(model):
    """Every parameter and saved buffer; what follows from the config (rotary frequencies) is no weight."""
    with torch.no_grad():
        for parameter in model.state_dict(keep_vars=True).values():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (0.5 if parameter.ndim == 1 else 0.0))
    return model.eval()


def their_logits(theirs, images, tokens, looks, segments):
    """ "Latest image" is nothing that the published class knows: its mask says so, for each token and image."""
    sees = (looks[..., None] == torch.arange(images.shape[1])).long()
    with torch.no_grad():
        out = theirs(
            input_ids=tokens,
            pixel_values=images,
            image_attention_mask=sees,
            attention_mask=(segments >= 0).long(),
            position_ids=torch.arange(tokens.shape[1])[None].expand(len(tokens), -1),
        )
    return out.logits


def documents(vocab):
    image = IMAGE if vocab > IMAGE else 5
    tokens = torch.randint(6, 37, (3, 9))
    for row, places in enumerate(([0, 4], [2], [1, 3])):
        tokens[row, places] = image
    segments = torch.zeros_like(tokens)
    segments[1, 7:] = -1
    segments[2, 5:] = -1
    return tokens, latest_image(tokens, segments, image), segments


def assert_same(theirs, ours):
    images = torch.randn(3, 2, 3, 12, 12)
    tokens, looks, segments = documents(ours.language.config.vocab_size)
    assert looks[0].tolist() == [0] * 4 + [1] * 5 and looks[1].tolist() == [-1, -1, 0, 0, 0, 0, 0, -1, -1]
    expected = their_logits(theirs, images, tokens, looks, segments)
    with torch.no_grad():
        media = ours.look(images)
        given = ours(tokens, media, looks, segments)
        # What each is worth: without the images, or looking at the other one, the logits are others.
        assert (ours(tokens, media.flip(1), looks, segments) - given)[segments >= 0].abs().max() > 1e-2
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(given[segments >= 0], expected[segments >= 0], atol=1e-4, rtol=0)


def back_again(folder):
    again, report = IdeficsForVisionText2Text.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return again.eval()


@pytest.mark.parametrize("case", CASES)
def test_theirs_loads_here_and_ours_loads_there(case, tmp_path):
    theirs = published(case)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = Flamingo.from_pretrained(tmp_path / "theirs")
    assert_same(theirs, ours)
    ours.save_pretrained(tmp_path / "ours", added=CASES[case]["additional_vocab_size"])
    before, after = (load_file(tmp_path / side / "model.safetensors") for side in ("theirs", "ours"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert_same(back_again(tmp_path / "ours"), ours)


@pytest.mark.parametrize("norms", [False, True])
def test_the_resampler_alone(norms, tmp_path):
    theirs = published("norms on queries and keys" if norms else "every block")
    theirs.save_pretrained(tmp_path)
    ours = Flamingo.from_pretrained(tmp_path).resampler
    assert isinstance(ours, PerceiverResampler)
    for patches in (1, 6, 30):
        features = torch.randn(2, patches, 20)
        with torch.no_grad():
            expected = theirs.model.perceiver_resampler(features)
            torch.testing.assert_close(ours(features), expected, atol=1e-5, rtol=0)


def test_it_writes_what_the_published_class_writes(tmp_path):
    """Greedily, after a prompt with two images: every new token looks at the second."""
    theirs = published("every other block")
    theirs.save_pretrained(tmp_path)
    ours = Flamingo.from_pretrained(tmp_path)
    images = torch.randn(1, 2, 3, 12, 12)
    tokens = torch.tensor([[1, IMAGE, 9, 12, IMAGE, 7]])
    with torch.no_grad():
        written = tokens
        for _ in range(7):
            looks = latest_image(written, torch.zeros_like(written), IMAGE)
            looks[:, 5:] = 1  # whatever is written, its latest image is the prompt's last
            logits = their_logits(theirs, images, written, looks, torch.zeros_like(written))
            written = torch.cat([written, logits[:, -1:].argmax(-1)], dim=1)
        looks = latest_image(tokens, torch.zeros_like(tokens), IMAGE)
        given = ours.answer(list(tokens), ours.look(images), list(looks), Sampling(7))[0]
    assert torch.equal(given, written[0, 6:])


# ── Published files differ from a fresh save ──────────────────────────────────────────────────────────────────────────


def rewrite_config(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_files_and_configs_of_version_4(tmp_path):
    """The public weights' config of 2023 says `torch_dtype`, no rotary settings; its files number places and hold frequencies."""
    settings = {**LANGUAGE, "additional_vocab_size": 2}
    settings["rope_parameters"] = {"rope_type": "default", "rope_theta": 10_000.0}
    config = IdeficsConfig(**settings, vision_config=VISION, perceiver_config=PERCEIVER, use_resampler=True)
    theirs = redrawn(IdeficsForVisionText2Text(config))
    theirs.save_pretrained(tmp_path)
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
    assert_same(theirs, Flamingo.from_pretrained(tmp_path))


def test_a_config_that_leaves_every_default_out(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "idefics", "use_resampler": True}))
    ours, vision, language, added = config_mapping.read_idefics(tmp_path)
    theirs = IdeficsConfig()
    assert (language.width, language.depth, language.mlp_dim, language.vocab_size) == (4096, 32, 11_008, 32_000)
    assert language.norm_eps == theirs.rms_norm_eps and added == 0
    assert (vision.width, vision.depth, vision.patch_size, vision.activation) == (768, 32, 14, "gelu")
    assert (ours.every, ours.gates, ours.qk_norm, ours.resampler.latents) == (1, "scalar", False, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "idefics2"}, "'idefics2'"),
        ({"use_resampler": False}, "without a perceiver resampler"),
        ({"alpha_type": "matrix"}, "alpha_type is 'matrix'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    ],
)
def test_another_model_is_refused(change, message, tmp_path):
    published("every block").save_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: config.update(change))
    with pytest.raises(CourseError, match=message):
        Flamingo.from_pretrained(tmp_path)
