"""Equality with the published SigLIP 2 classes, both ways, for padded and packed images of odd shapes.

Every parameter is redrawn at random first: at their initial values many of them have no effect.
"""

import json
from dataclasses import fields, replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Siglip2Config, Siglip2Model, Siglip2VisionConfig, Siglip2VisionModel

from lessons.lesson_02_clip.model import TextEncoderConfig
from lessons.lesson_06_any_resolution.model import (
    ImagePatches,
    NaViT,
    NaViTConfig,
    SigLIP2,
    SigLIP2Config,
    config_mapping,
    pack,
    pad,
    siglip2_vision_config,
)
from shared.errors import CourseError
from shared.pretrained import NO_EFFECT
from shared.testing import redraw_weights, rewrite_config

VISION = {
    "hidden_size": 20,
    "intermediate_size": 28,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "num_channels": 2,
    "patch_size": 3,
    "num_patches": 25,
}
TEXT = {
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "vocab_size": 40,
    "max_position_embeddings": 9,
    "projection_size": 20,
}
# No grid of one column: there PyTorch's own antialiased filter is wrong on the CPU (test_model.py).
GRIDS = [(2, 7), (1, 5), (5, 5), (9, 2), (1, 1), (6, 4)]


def images(grids=GRIDS, channels=2, side=3):
    return [
        ImagePatches.from_image(torch.randn(channels, rows * side, columns * side), side) for rows, columns in grids
    ]


def published_inputs(batch):
    """The arguments of the published class for a padded batch."""
    mask = (batch.segments >= 0).int()
    return {"pixel_values": batch.patches, "pixel_attention_mask": mask, "spatial_shapes": batch.grids}


def vision(**changes):
    return redraw_weights(Siglip2VisionModel(Siglip2VisionConfig(**VISION | changes)))


def siglip2():
    return redraw_weights(Siglip2Model(Siglip2Config(vision_config=dict(VISION), text_config=dict(TEXT))), gain=0.4)


def close(actual, expected):
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


def round_trip(published, model_class, folder):
    """Load a published model here, save it, and load it in `transformers`; return our model and the reloaded one."""
    published.save_pretrained(folder / "published")
    model = model_class.from_pretrained(folder / "published")
    model.save_pretrained(folder / "ours")
    again, report = type(published).from_pretrained(folder / "ours", output_loading_info=True)
    assert not any(report.values()), report
    before, after = (load_file(folder / side / "model.safetensors") for side in ("published", "ours"))
    assert len(before) == len(after)
    assert all(any(torch.equal(tensor, other) for other in after.values()) for tensor in before.values())
    return model, again.eval()


# ── Siglip2VisionModel ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("changes", [{}, {"hidden_act": "gelu", "layer_norm_eps": 0.1}], ids=["tanh gelu", "gelu"])
@torch.no_grad()
def test_padded_and_packed_images(changes, tmp_path):
    published = vision(**changes)
    model, again = round_trip(published, NaViT, tmp_path)
    batch = images()
    padded, packed = pad(batch, 30), pack(batch, 33)
    assert len(packed.patches) < len(batch)
    for other in (published, again):
        expected = other(**published_inputs(padded), output_hidden_states=True)
        for rows in (padded, packed):
            close(model(rows), expected.pooler_output)
            features = model.features(rows)
            for one, other_features in zip(rows.split(features), padded.split(expected.last_hidden_state), strict=True):
                close(one, other_features)
        states = model.hidden_states(padded)
        assert len(states) == len(expected.hidden_states) == 4
        for actual, state in zip(states, expected.hidden_states, strict=True):
            close(torch.cat(padded.split(actual)), torch.cat(padded.split(state)))


@torch.no_grad()
def test_a_row_without_padding(tmp_path):
    """The published class without a mask attends to every token."""
    published = vision()
    published.save_pretrained(tmp_path)
    batch = pad(images([(4, 3), (3, 4), (2, 6)]))
    expected = published(batch.patches, None, batch.grids)
    model = NaViT.from_pretrained(tmp_path)
    close(model.features(batch), expected.last_hidden_state)
    close(model(batch), expected.pooler_output)


@torch.no_grad()
def test_an_encoder_without_pooling(tmp_path):
    published = vision(vision_use_head=False)
    model, again = round_trip(published, NaViT, tmp_path)
    batch = pad(images())
    assert model.config.pooling == "none" and again.config.vision_use_head is False
    expected = published(**published_inputs(batch)).last_hidden_state
    close(torch.cat(batch.split(model.features(batch))), torch.cat(batch.split(expected)))
    with pytest.raises(ValueError, match=r"call features\(batch\)"):
        model(batch)


@pytest.mark.parametrize("prefix", ["vision_model.", ""])
def test_names_are_read_with_and_without_their_prefix_and_written_with_it(prefix, tmp_path):
    """Public files carry `vision_model.`; a fresh save of version 5 does not."""
    published = vision()
    published.save_pretrained(tmp_path)
    save_file(
        {prefix + name: tensor for name, tensor in published.state_dict().items()}, tmp_path / "model.safetensors"
    )
    model, batch = NaViT.from_pretrained(tmp_path), pad(images())
    with torch.no_grad():
        close(model(batch), published(**published_inputs(batch)).pooler_output)
    model.save_pretrained(tmp_path / "ours")
    assert all(name.startswith("vision_model.") for name in load_file(tmp_path / "ours" / "model.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision_files(dtype, tmp_path):
    published = vision().to(dtype)
    published.save_pretrained(tmp_path)
    batch = pad(images())
    close(NaViT.from_pretrained(tmp_path)(batch), published.float()(**published_inputs(batch)).pooler_output)
    half = NaViT.from_pretrained(tmp_path, dtype=dtype)
    expected = published.to(dtype)(**published_inputs(batch)).pooler_output
    torch.testing.assert_close(half(batch).float(), expected.float(), atol=0.3, rtol=0.05)
    assert half(batch).dtype == dtype


# ── Siglip2Model ──────────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def test_both_encoders(tmp_path):
    published = siglip2()
    model, again = round_trip(published, SigLIP2, tmp_path)
    batch, packed = images(), pack(images(), 33)
    padded, packed = pad(batch), pack(batch, 33)
    tokens = torch.randint(0, 40, (len(batch), 9))
    for other in (published, again):
        expected = other(input_ids=tokens, **published_inputs(padded), return_loss=True)
        for rows in (padded, packed):
            close(model(rows, tokens), expected.logits_per_image)
            close(model.encode_images(rows), expected.image_embeds)
            loss = model.loss(model.encode_images(rows), model.encode_texts(tokens))
            torch.testing.assert_close(loss, expected.loss, atol=1e-4, rtol=0)
        close(model.encode_texts(tokens), expected.text_embeds)


def test_public_names_of_both_encoders(tmp_path):
    siglip2().save_pretrained(tmp_path / "published")
    SigLIP2.from_pretrained(tmp_path / "published").save_pretrained(tmp_path / "ours")
    names = [set(load_file(tmp_path / side / "model.safetensors")) for side in ("published", "ours")]
    assert names[0] == names[1]
    assert {"logit_scale", "vision_model.head.probe", "text_model.head.bias"} < names[0]


def test_the_published_sizes():
    """SigLIP 2 B/16: the NaFlex file differs from the fixed one in its 256 positions and its linear patch embedding."""
    with torch.device("meta"):
        encoder, published = NaViT(siglip2_vision_config()), Siglip2VisionModel(Siglip2VisionConfig())
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 92_930_304
    assert sum(parameter.numel() for parameter in published.parameters()) == 92_930_304


# ── Settings ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["siglip2", "siglip2_vision_model"])
def test_a_config_that_leaves_every_default_out(kind, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    if kind == "siglip2":
        assert config_mapping.read_siglip2_config(tmp_path) == SigLIP2Config()
    else:
        assert config_mapping.read_vision_config(tmp_path) == siglip2_vision_config()


def test_the_table_has_a_row_for_every_setting_of_the_published_class():
    rows = {row.published for row in config_mapping.VISION}
    assert {field.name for field in fields(Siglip2VisionConfig)} - NO_EFFECT == rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "siglip_vision_model"}, "'siglip_vision_model'; expected siglip2_vision_model"),
        ({"hidden_act": "swish"}, "hidden_act is 'swish'"),
        ({"num_patches": 24}, "num_patches is 24, expected the square"),
        ({"num_patches": 10**12}, "num_patches is 1000000000000, expected the square"),
        ({"patch_size": [3, 3]}, r"patch_size is \[3, 3\]"),
        ({"num_attention_heads": 3}, "width 20 does not divide into 3 heads"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(change, message, tmp_path):
    vision().save_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: config.update(change))
    with pytest.raises(CourseError, match=message):
        NaViT.from_pretrained(tmp_path)


def test_two_embedding_dimensions_are_refused(tmp_path):
    siglip2().save_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: config["text_config"].update(projection_size=24))
    with pytest.raises(CourseError, match=r"dimension 24 .* but image vectors have dimension 20"):
        SigLIP2.from_pretrained(tmp_path)


def test_a_siglip2_without_pooled_images_is_refused(tmp_path):
    siglip2().save_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: config["vision_config"].update(vision_use_head=False))
    with pytest.raises(CourseError, match="vision_use_head is False"):
        SigLIP2.from_pretrained(tmp_path)


def test_a_missing_and_a_surplus_weight_are_named(tmp_path):
    vision().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["head.probe"]
    save_file(weights | {"head.extra": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CourseError, match=r"(?s)missing: .*head\.probe.*head\.extra"):
        NaViT.from_pretrained(tmp_path)


SMALL = {"patch_size": 3, "channels": 2, "width": 20, "depth": 1, "heads": 5, "mlp_dim": 24, "grid_size": 4}


@pytest.mark.parametrize(
    "change",
    [
        {"positions": "factorized-absolute"},
        {"positions": "rotary"},
        {"pooling": "mean"},
        {"classes": 3},
        {"qkv_bias": False},
        {"qk_norm": True},
    ],
)
def test_an_encoder_without_a_published_class_is_not_written(change, tmp_path):
    with pytest.raises(CourseError, match="no published class supports"):
        NaViT(replace(siglip2_vision_config(**SMALL), **change)).save_pretrained(tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_text_encoder_of_another_kind_is_not_written(tmp_path):
    text = TextEncoderConfig(vocab_size=29, context_length=9, width=12, depth=1, heads=3, mlp_dim=24)
    with pytest.raises(CourseError, match="no published class supports"):
        SigLIP2(SigLIP2Config(siglip2_vision_config(**SMALL), text)).save_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": "fixed"}, "positions is 'fixed', expected one of learned"),
        ({"pooling": "class"}, "pooling is 'class'"),
        ({"heads": 7}, "does not divide into 7 heads"),
        ({"positions": "rotary", "width": 30, "heads": 5}, "a multiple of 4, got 6"),
        ({"pooling": "none", "classes": 3}, "needs a pooled vector"),
        ({"grid_size": 0}, "grid_size is 0"),
    ],
)
def test_values_that_exclude_each_other(change, message):
    with pytest.raises(ValueError, match=message):
        NaViTConfig(**SMALL | change)
