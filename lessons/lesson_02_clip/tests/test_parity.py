"""Equality with the published classes, both ways, in configurations odd enough that nothing is equal by accident.

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
from lessons.lesson_02_clip import model as ours
from lessons.lesson_02_clip.model import config_mapping
from shared.errors import CourseError

EYE = {"hidden_size": 20, "num_hidden_layers": 3, "num_attention_heads": 5, "intermediate_size": 28, "image_size": 12, "patch_size": 3, "num_channels": 2}  # fmt: skip
READER = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 36, "vocab_size": 40, "max_position_embeddings": 9}  # fmt: skip
IDS = {"bos_token_id": 38, "eos_token_id": 37, "pad_token_id": 39}


def redrawn(model):
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                # Wide enough that every part matters, narrow enough that softmax does not saturate.
                spread = torch.randn_like(tensor) * 0.3
                tensor.copy_(spread + (0.5 if tensor.ndim <= 1 and not name.startswith("logit") else 0.0))
    return model.eval()


def clip(**text):
    config = CLIPConfig(vision_config=dict(EYE), text_config=READER | IDS | text, projection_dim=14)
    return redrawn(CLIPModel(config))


def siglip(**changes):
    reader = READER | IDS | {"projection_size": 20}
    return redrawn(SiglipModel(SiglipConfig(vision_config=EYE | changes, text_config=reader)))


def captions(length=9, end=37):
    """Numbers with the end token in the middle of each row, and larger ones on both sides of it."""
    rows = torch.randint(0, 36, (4, length))
    rows[:, 1] = 39
    rows[torch.arange(4), torch.tensor([2, 3, 5, length - 1])] = end
    rows[0, 4] = end  # padding repeats it
    return rows


def both_ways(theirs, load, save, folder):
    """Load the published model here, save it from here, and load that there; return our model and the reloaded one."""
    theirs.save_pretrained(folder / "theirs")
    mine = load(folder / "theirs")
    save(mine, folder / "ours")
    again, report = type(theirs).from_pretrained(folder / "ours", output_loading_info=True)
    assert not any(report.values()), report
    before, after = (load_file(folder / side / "model.safetensors") for side in ("theirs", "ours"))
    assert all(any(torch.equal(tensor, other) for other in after.values()) for tensor in before.values())
    assert len(before) == len(after)
    return mine, again.eval()


def close(given, expected):
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(given, expected, atol=1e-4, rtol=0)


# ── CLIPModel ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("end", [37, 2])
@pytest.mark.parametrize("changes", [{}, {"hidden_act": "gelu", "layer_norm_eps": 0.1}], ids=["quick gelu", "gelu"])
@torch.no_grad()
def test_clip_model(end, changes, tmp_path):
    """With 2 as its end token (as published) the caption's vector is that of the *largest* number in the row."""
    theirs = clip(eos_token_id=end, **changes)
    mine, again = both_ways(theirs, ours.CLIP.from_pretrained, ours.CLIP.save_pretrained, tmp_path)
    images, tokens = torch.randn(3, 2, 12, 12), captions()
    for other in (theirs, again):
        expected = other(input_ids=tokens, pixel_values=images)
        close(mine(images, tokens), expected.logits_per_image)
        close(mine.encode_images(images), expected.image_embeds)
        close(mine.encode_texts(tokens), expected.text_embeds)
        loss = mine.loss(mine.encode_images(images), mine.encode_texts(tokens[:3]))
        theirs_loss = other(input_ids=tokens[:3], pixel_values=images, return_loss=True).loss
        torch.testing.assert_close(loss, theirs_loss, atol=1e-4, rtol=0)


@torch.no_grad()
def test_images_of_other_sizes(tmp_path):
    theirs = clip()
    theirs.save_pretrained(tmp_path)
    mine = ours.CLIP.from_pretrained(tmp_path)
    for height, width in ((12, 12), (9, 21), (18, 6)):
        images = torch.randn(2, 2, height, width)
        expected = theirs.vision_model(images, interpolate_pos_encoding=True).pooler_output
        close(mine.image_encoder(images), expected)


def test_a_published_folder_of_2021(tmp_path):
    """`text_config_dict` beside `text_config`, `torch_dtype`, sides left out, and position ids among the weights."""
    theirs = clip(eos_token_id=2)
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("dtype")
    config["torch_dtype"] = "float32"
    for tower in ("text", "vision"):
        config[f"{tower}_config_dict"] = config.pop(f"{tower}_config")
        config[f"{tower}_config"] = {"hidden_size": 512, "torchscript": False}
        for name in ("hidden_act", "layer_norm_eps", "attention_dropout"):
            config[f"{tower}_config_dict"].pop(name)
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = load_file(tmp_path / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = torch.arange(9)[None]
    weights["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    save_file(weights, tmp_path / "model.safetensors")
    mine = ours.CLIP.from_pretrained(tmp_path)
    images, tokens = torch.randn(3, 2, 12, 12), captions()
    with torch.no_grad():
        close(mine(images, tokens), theirs(input_ids=tokens, pixel_values=images).logits_per_image)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_config_that_leaves_every_default_out(kind, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    config = getattr(config_mapping, f"read_{kind}_config")(tmp_path)
    assert config == (
        ours.CLIPConfig(text=replace(ours.TextEncoderConfig(), end_token=49_407))
        if kind == "clip"
        else ours.SigLIPConfig()
    )
    theirs = (CLIPConfig if kind == "clip" else SiglipConfig)()
    assert config.image.patch_size == theirs.vision_config.patch_size
    assert config.text.width == theirs.text_config.hidden_size


def test_the_published_models_have_their_published_sizes():
    with torch.device("meta"):
        clip_base, siglip_base = ours.CLIP(ours.CLIPConfig()), ours.SigLIP(ours.SigLIPConfig())
        theirs = SiglipModel(SiglipConfig())
    assert sum(parameter.numel() for parameter in clip_base.parameters()) == 151_277_313  # ViT-B/32
    assert sum(parameter.numel() for parameter in siglip_base.parameters()) == 203_155_970  # ViT-B/16 at 224
    assert sum(parameter.numel() for parameter in theirs.parameters()) == 203_155_970


# ── The towers alone ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", ["clip", "siglip"])
@torch.no_grad()
def test_vision_models(family, tmp_path):
    kind, config = {"clip": (CLIPVisionModel, CLIPVisionConfig), "siglip": (SiglipVisionModel, SiglipVisionConfig)}[
        family
    ]
    theirs = redrawn(kind(config(**EYE)))
    mine, again = both_ways(theirs, ours.read_vision_encoder, ours.write_vision_encoder, tmp_path)
    images = torch.randn(3, 2, 12, 12)
    for other in (theirs, again):
        expected = other(images, output_hidden_states=True)
        close(mine(images), expected.pooler_output)
        given = mine.hidden_states(images)
        assert len(given) == len(expected.hidden_states) == 4
        for here, there in zip(given, expected.hidden_states, strict=True):
            close(here, there)
    theirs.set_attn_implementation("eager")
    for here, there in zip(mine.attention_maps(images), theirs(images, output_attentions=True).attentions, strict=True):
        close(here, there)


@pytest.mark.parametrize("end", [37, 2])
@torch.no_grad()
def test_text_model(end, tmp_path):
    theirs = redrawn(CLIPTextModel(CLIPTextConfig(**READER | IDS | {"eos_token_id": end})))
    mine, again = both_ways(theirs, ours.TextEncoder.from_pretrained, ours.TextEncoder.save_pretrained, tmp_path)
    for tokens in (captions(), captions(6)):
        for other in (theirs, again):
            expected = other(tokens)
            close(mine.features(tokens), expected.last_hidden_state)
            close(mine(tokens), expected.pooler_output)


@pytest.mark.parametrize("prefix", ["vision_model.", ""])
def test_towers_are_read_with_and_without_their_prefix_and_written_with_it(prefix, tmp_path):
    """Public files carry `vision_model.`; a fresh save of version 5 does not."""
    theirs = redrawn(CLIPVisionModel(CLIPVisionConfig(**EYE)))
    theirs.save_pretrained(tmp_path)
    save_file(
        {prefix + name: tensor for name, tensor in theirs.state_dict().items() if "position_ids" not in name},
        tmp_path / "model.safetensors",
    )
    mine = ours.read_vision_encoder(tmp_path)
    images = torch.randn(1, 2, 12, 12)
    with torch.no_grad():
        close(mine(images), theirs(images).pooler_output)
    ours.write_vision_encoder(mine, tmp_path / "ours")
    assert all(name.startswith("vision_model.") for name in load_file(tmp_path / "ours" / "model.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files(dtype, tmp_path):
    theirs = clip().to(dtype)
    theirs.save_pretrained(tmp_path)
    images, tokens = torch.randn(3, 2, 12, 12), captions()
    with torch.no_grad():
        expected = theirs.float()(input_ids=tokens, pixel_values=images).logits_per_image
        close(ours.CLIP.from_pretrained(tmp_path)(images, tokens), expected)
    assert ours.CLIP.from_pretrained(tmp_path, dtype=dtype).log_scale.dtype == dtype


# ── SiglipModel ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("changes", [{}, {"hidden_act": "gelu", "layer_norm_eps": 0.1}], ids=["tanh gelu", "gelu"])
@torch.no_grad()
def test_siglip_model(changes, tmp_path):
    theirs = siglip(**changes)
    mine, again = both_ways(theirs, ours.SigLIP.from_pretrained, ours.SigLIP.save_pretrained, tmp_path)
    images, tokens = torch.randn(4, 2, 12, 12), captions()
    for other in (theirs, again):
        expected = other(input_ids=tokens, pixel_values=images, return_loss=True)
        close(mine(images, tokens), expected.logits_per_image)
        close(mine.encode_images(images), expected.image_embeds)
        close(mine.encode_texts(tokens), expected.text_embeds)
        loss = mine.loss(mine.encode_images(images), mine.encode_texts(tokens))
        torch.testing.assert_close(loss, expected.loss, atol=1e-4, rtol=0)


# ── What does not fit ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "'bert'; expected clip"),
        ({"vision_config": EYE | {"hidden_act": "swish"}}, "activation is 'swish'"),
    ],
)
def test_another_model_is_refused(change, message, tmp_path):
    clip().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises((CourseError, ValueError), match=message):
        ours.CLIP.from_pretrained(tmp_path)


def test_a_siglip_whose_towers_cannot_meet(tmp_path):
    siglip().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["projection_size"] = 24
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CourseError, match="dimension 24, but image vectors have dimension 20"):
        ours.SigLIP.from_pretrained(tmp_path)


def test_a_missing_weight_is_named(tmp_path):
    clip().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CourseError, match=r"missing: text_projection\.weight \[14, 24\]"):
        ours.CLIP.from_pretrained(tmp_path)


SMALL = {"image_size": 12, "patch_size": 3, "channels": 2, "width": 20, "depth": 1, "heads": 5, "mlp_dim": 24}


@pytest.mark.parametrize("change", [{"positions": "rotary"}, {"pooling": "mean"}, {"registers": 2}, {"patch_bias": True}, {"pre_norm": False}])  # fmt: skip
def test_a_tower_that_no_published_class_is_cannot_be_saved_as_one(change, tmp_path):
    encoder = VisionTransformer(ours.clip_vision_config(**SMALL | change))
    with pytest.raises(CourseError, match="no published class"):
        ours.write_vision_encoder(encoder, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_our_own_model_loads_there(tmp_path):
    """Not only what came from there: a model that was made and trained here is a published folder too."""
    text = ours.TextEncoderConfig(vocab_size=40, context_length=9, width=24, depth=1, heads=3, mlp_dim=20, end_token=37)
    mine = redrawn(ours.CLIP(ours.CLIPConfig(ours.clip_vision_config(**SMALL), text, embedding=10)))
    mine.save_pretrained(tmp_path)
    theirs = CLIPModel.from_pretrained(tmp_path).eval()
    images, tokens = torch.randn(3, 2, 12, 12), captions()
    with torch.no_grad():
        close(mine(images, tokens), theirs(input_ids=tokens, pixel_values=images).logits_per_image)
