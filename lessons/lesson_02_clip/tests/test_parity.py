"""Equality with the published classes in both directions, in configurations where nothing is equal by accident.

Every parameter and buffer is redrawn at random first: at their initial values many of them have no effect.
"""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip import model as course
from lessons.lesson_02_clip.model import config_mapping
from shared.errors import CourseError

IMAGE = {
    "hidden_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "intermediate_size": 28,
    "image_size": 12,
    "patch_size": 3,
    "num_channels": 2,
}
TEXT = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 36,
    "vocab_size": 40,
    "max_position_embeddings": 9,
}
IDS = {"bos_token_id": 38, "eos_token_id": 37, "pad_token_id": 39}


def redrawn(model):
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                # Wide enough that every part matters, narrow enough that softmax does not saturate.
                noise = torch.randn_like(tensor) * 0.3
                tensor.copy_(noise + (0.5 if tensor.ndim <= 1 and not name.startswith("logit") else 0.0))
    return model.eval()


def clip(**text):
    config = CLIPConfig(vision_config=dict(IMAGE), text_config=TEXT | IDS | text, projection_dim=14)
    return redrawn(CLIPModel(config))


def siglip(**changes):
    text = TEXT | IDS | {"projection_size": 20}
    return redrawn(SiglipModel(SiglipConfig(vision_config=IMAGE | changes, text_config=text)))


def captions(length=9, end=37):
    """Return rows of token ids with the end token in the middle, and larger ids on both sides of it."""
    rows = torch.randint(0, 36, (4, length))
    rows[:, 1] = 39
    rows[torch.arange(4), torch.tensor([2, 3, 5, length - 1])] = end
    rows[0, 4] = end  # padding repeats it
    return rows


def round_trip(published, load, save, folder):
    """Load a published model here, save it, and load it in `transformers`; return our model and the reloaded one."""
    published.save_pretrained(folder / "published")
    model = load(folder / "published")
    save(model, folder / "ours")
    again, report = type(published).from_pretrained(folder / "ours", output_loading_info=True)
    assert not any(report.values()), report
    before, after = (load_file(folder / side / "model.safetensors") for side in ("published", "ours"))
    assert all(any(torch.equal(tensor, other) for other in after.values()) for tensor in before.values())
    assert len(before) == len(after)
    return model, again.eval()


def close(actual, expected):
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


# ── CLIPModel ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("end", [37, 2])
@pytest.mark.parametrize("changes", [{}, {"hidden_act": "gelu", "layer_norm_eps": 0.1}], ids=["quick gelu", "gelu"])
@torch.no_grad()
def test_clip_model(end, changes, tmp_path):
    """With 2 as the end token (as published), the caption's vector is that of the *largest* id in the row."""
    published = clip(eos_token_id=end, **changes)
    model, again = round_trip(published, course.CLIP.from_pretrained, course.CLIP.save_pretrained, tmp_path)
    images, tokens = torch.randn(3, 2, 12, 12), captions()
    for other in (published, again):
        expected = other(input_ids=tokens, pixel_values=images)
        close(model(images, tokens), expected.logits_per_image)
        close(model.encode_images(images), expected.image_embeds)
        close(model.encode_texts(tokens), expected.text_embeds)
        loss = model.loss(model.encode_images(images), model.encode_texts(tokens[:3]))
        published_loss = other(input_ids=tokens[:3], pixel_values=images, return_loss=True).loss
        torch.testing.assert_close(loss, published_loss, atol=1e-4, rtol=0)


@torch.no_grad()
def test_images_of_other_sizes(tmp_path):
    published = clip()
    published.save_pretrained(tmp_path)
    model = course.CLIP.from_pretrained(tmp_path)
    for height, width in ((12, 12), (9, 21), (18, 6)):
        images = torch.randn(2, 2, height, width)
        expected = published.vision_model(images, interpolate_pos_encoding=True).pooler_output
        close(model.image_encoder(images), expected)


def test_a_published_folder_of_2021(tmp_path):
    """`text_config_dict` beside `text_config`, `torch_dtype`, sides left out, and position ids among the weights."""
    published = clip(eos_token_id=2)
    published.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("dtype")
    config["torch_dtype"] = "float32"
    for encoder in ("text", "vision"):
        config[f"{encoder}_config_dict"] = config.pop(f"{encoder}_config")
        config[f"{encoder}_config"] = {"hidden_size": 512, "torchscript": False}
        for name in ("hidden_act", "layer_norm_eps", "attention_dropout"):
            config[f"{encoder}_config_dict"].pop(name)
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = load_file(tmp_path / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = torch.arange(9)[None]
    weights["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    save_file(weights, tmp_path / "model.safetensors")
    model = course.CLIP.from_pretrained(tmp_path)
    images, tokens = torch.randn(3, 2, 12, 12), captions()
    with torch.no_grad():
        close(model(images, tokens), published(input_ids=tokens, pixel_values=images).logits_per_image)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_config_that_leaves_every_default_out(kind, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    config = getattr(config_mapping, f"read_{kind}_config")(tmp_path)
    assert config == (
        course.CLIPConfig(text=replace(course.TextEncoderConfig(), end_token=49_407))
        if kind == "clip"
        else course.SigLIPConfig()
    )
    published = (CLIPConfig if kind == "clip" else SiglipConfig)()
    assert config.image.patch_size == published.vision_config.patch_size
    assert config.text.width == published.text_config.hidden_size


def test_the_published_models_have_their_published_sizes():
    with torch.device("meta"):
        clip_base, siglip_base = course.CLIP(course.CLIPConfig()), course.SigLIP(course.SigLIPConfig())
        published = SiglipModel(SiglipConfig())
    assert sum(parameter.numel() for parameter in clip_base.parameters()) == 151_277_313  # ViT-B/32
    assert sum(parameter.numel() for parameter in siglip_base.parameters()) == 203_155_970  # ViT-B/16 at 224
    assert sum(parameter.numel() for parameter in published.parameters()) == 203_155_970


def test_the_published_siglip_whose_images_do_not_divide_into_patches():
    """SigLIP SO400M/14 at 384 pixels: 27 × 27 patches, six pixels at the right and at the bottom are left out."""
    changes = {"image_size": 384, "patch_size": 14, "width": 1152, "depth": 27, "heads": 16, "mlp_dim": 4304}
    config = course.siglip_vision_config(**changes)
    assert config.grid == (27, 27)
    with torch.device("meta"):
        encoder = VisionTransformer(config)
        assert encoder.features(torch.zeros(1, 3, 384, 384)).shape == (1, 729, 1152)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 428_225_600


def test_a_folder_of_2021_whose_dictionaries_leave_settings_out(tmp_path):
    """What `text_config_dict` leaves out has the class's default, not the value of `text_config`."""
    parts = {"text_config": TEXT | {"hidden_act": "gelu"}, "text_config_dict": TEXT}
    parts |= {"vision_config": IMAGE, "vision_config_dict": IMAGE | {"patch_size": 4}}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", **parts}))
    with pytest.raises(CourseError, match="eos_token_id is 49407"):  # the default, which 40 tokens do not have
        config_mapping.read_clip_config(tmp_path)
    parts["text_config_dict"] = TEXT | IDS
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", **parts}))
    config = config_mapping.read_clip_config(tmp_path)
    assert config.text.activation == "quick_gelu" == CLIPConfig(**parts).text_config.hidden_act
    assert config.image.patch_size == 4 == CLIPConfig(**parts).vision_config.patch_size


# ── The encoders alone ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", ["clip", "siglip"])
@torch.no_grad()
def test_vision_models(family, tmp_path):
    kind, config = {
        "clip": (CLIPVisionModel, CLIPVisionConfig),
        "siglip": (SiglipVisionModel, SiglipVisionConfig),
    }[family]
    published = redrawn(kind(config(**IMAGE)))
    model, again = round_trip(published, course.read_vision_encoder, course.write_vision_encoder, tmp_path)
    images = torch.randn(3, 2, 12, 12)
    for other in (published, again):
        output = other(images, output_hidden_states=True)
        close(model(images), output.pooler_output)
        states = model.hidden_states(images)
        assert len(states) == len(output.hidden_states) == 4
        for actual, expected in zip(states, output.hidden_states, strict=True):
            close(actual, expected)
    published.set_attn_implementation("eager")
    attentions = published(images, output_attentions=True).attentions
    for actual, expected in zip(model.attention_maps(images), attentions, strict=True):
        close(actual, expected)


@pytest.mark.parametrize("end", [37, 2])
@torch.no_grad()
def test_text_model(end, tmp_path):
    published = redrawn(CLIPTextModel(CLIPTextConfig(**TEXT | IDS | {"eos_token_id": end})))
    model, again = round_trip(
        published, course.TextEncoder.from_pretrained, course.TextEncoder.save_pretrained, tmp_path
    )
    for tokens in (captions(), captions(6)):
        for other in (published, again):
            expected = other(tokens)
            close(model.features(tokens), expected.last_hidden_state)
            close(model(tokens), expected.pooler_output)


@pytest.mark.parametrize("prefix", ["vision_model.", ""])
def test_encoders_are_read_with_and_without_their_prefix_and_written_with_it(prefix, tmp_path):
    """Public files carry `vision_model.`; a fresh save of version 5 does not."""
    published = redrawn(CLIPVisionModel(CLIPVisionConfig(**IMAGE)))
    published.save_pretrained(tmp_path)
    save_file(
        {prefix + name: tensor for name, tensor in published.state_dict().items() if "position_ids" not in name},
        tmp_path / "model.safetensors",
    )
    model = course.read_vision_encoder(tmp_path)
    images = torch.randn(1, 2, 12, 12)
    with torch.no_grad():
        close(model(images), published(images).pooler_output)
    course.write_vision_encoder(model, tmp_path / "ours")
    assert all(name.startswith("vision_model.") for name in load_file(tmp_path / "ours" / "model.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files(dtype, tmp_path):
    published = clip().to(dtype)
    published.save_pretrained(tmp_path)
    images, tokens = torch.randn(3, 2, 12, 12), captions()
    with torch.no_grad():
        expected = published.float()(input_ids=tokens, pixel_values=images).logits_per_image
        close(course.CLIP.from_pretrained(tmp_path)(images, tokens), expected)
    assert course.CLIP.from_pretrained(tmp_path, dtype=dtype).log_scale.dtype == dtype


# ── SiglipModel ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("changes", [{}, {"hidden_act": "gelu", "layer_norm_eps": 0.1}], ids=["tanh gelu", "gelu"])
@torch.no_grad()
def test_siglip_model(changes, tmp_path):
    published = siglip(**changes)
    model, again = round_trip(published, course.SigLIP.from_pretrained, course.SigLIP.save_pretrained, tmp_path)
    images, tokens = torch.randn(4, 2, 12, 12), captions()
    for other in (published, again):
        expected = other(input_ids=tokens, pixel_values=images, return_loss=True)
        close(model(images, tokens), expected.logits_per_image)
        close(model.encode_images(images), expected.image_embeds)
        close(model.encode_texts(tokens), expected.text_embeds)
        loss = model.loss(model.encode_images(images), model.encode_texts(tokens))
        torch.testing.assert_close(loss, expected.loss, atol=1e-4, rtol=0)


# ── What does not fit ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "'bert'; expected clip"),
        ({"vision_config": IMAGE | {"hidden_act": "swish"}}, "hidden_act is 'swish'"),
    ],
)
def test_another_model_is_refused(change, message, tmp_path):
    clip().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises((CourseError, ValueError), match=message):
        course.CLIP.from_pretrained(tmp_path)


def test_a_siglip_with_two_embedding_dimensions_is_refused(tmp_path):
    siglip().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["projection_size"] = 24
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CourseError, match=r"dimension 24 .* but image vectors have dimension 20"):
        course.SigLIP.from_pretrained(tmp_path)


def test_a_missing_weight_is_named(tmp_path):
    clip().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CourseError, match=r"missing: text_projection\.weight \[14, 24\]"):
        course.CLIP.from_pretrained(tmp_path)


SMALL = {"image_size": 12, "patch_size": 3, "channels": 2, "width": 20, "depth": 1, "heads": 5, "mlp_dim": 24}


@pytest.mark.parametrize(
    "change",
    [{"positions": "rotary"}, {"pooling": "mean"}, {"registers": 2}, {"patch_bias": True}, {"pre_norm": False}],
)
def test_an_encoder_without_a_published_class_cannot_be_saved(change, tmp_path):
    encoder = VisionTransformer(course.clip_vision_config(**SMALL | change))
    with pytest.raises(CourseError, match="no published class"):
        course.write_vision_encoder(encoder, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_an_end_token_that_published_files_use_for_another_meaning_is_not_written(tmp_path):
    """2 stands for the largest token id there."""
    sizes = {"vocab_size": 40, "context_length": 9, "width": 24, "depth": 1, "heads": 3, "mlp_dim": 20}
    model = course.TextEncoder(course.TextEncoderConfig(**sizes, end_token=2))
    with pytest.raises(CourseError, match="end_token 2"):
        model.save_pretrained(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_model_made_in_this_course_loads_in_transformers(tmp_path):
    """Models that did not come from `transformers` are published folders too."""
    text = course.TextEncoderConfig(
        vocab_size=40, context_length=9, width=24, depth=1, heads=3, mlp_dim=20, end_token=37
    )
    model = redrawn(course.CLIP(course.CLIPConfig(course.clip_vision_config(**SMALL), text, embedding=10)))
    model.save_pretrained(tmp_path)
    published = CLIPModel.from_pretrained(tmp_path).eval()
    images, tokens = torch.randn(3, 2, 12, 12), captions()
    with torch.no_grad():
        close(model(images, tokens), published(input_ids=tokens, pixel_values=images).logits_per_image)
