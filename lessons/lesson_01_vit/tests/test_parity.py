"""Equality with the published classes in both directions, in configurations where nothing is equal by accident.

Every parameter is redrawn at random first: many (biases, scales, tokens) have no effect at their initial values.
"""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTModel,
)
from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

from lessons.lesson_01_vit.model import (
    MaskedAutoencoder,
    VisionTransformer,
    VisionTransformerConfig,
    config_mapping,
    patchify,
)
from shared.errors import CourseError
from shared.testing import redraw_weights, rewrite_config

SMALL = {"hidden_size": 20, "num_hidden_layers": 3, "num_attention_heads": 5, "patch_size": 3, "num_channels": 2}
CASES = {
    "vit": (ViTModel, ViTConfig(**SMALL, intermediate_size=28, image_size=12)),
    "vit, no qkv bias": (ViTModel, ViTConfig(**SMALL, intermediate_size=28, image_size=12, qkv_bias=False)),
    "vit, other eps": (ViTModel, ViTConfig(**SMALL, intermediate_size=28, image_size=12, layer_norm_eps=0.1)),
    "classifier": (ViTForImageClassification, ViTConfig(**SMALL, intermediate_size=36, image_size=12, num_labels=7)),
    "dinov2": (Dinov2Model, Dinov2Config(**SMALL, mlp_ratio=3, image_size=12)),
    "dinov2, swiglu": (
        Dinov2Model,
        Dinov2Config(**SMALL, mlp_ratio=4, image_size=15, use_swiglu_ffn=True, qkv_bias=False),
    ),
    "dinov2, no mask token": (Dinov2Model, Dinov2Config(**SMALL, mlp_ratio=2, image_size=12, use_mask_token=False)),
    "registers": (
        Dinov2WithRegistersModel,
        Dinov2WithRegistersConfig(**SMALL, mlp_ratio=2, image_size=15, num_register_tokens=3),
    ),
    "registers, swiglu": (
        Dinov2WithRegistersModel,
        Dinov2WithRegistersConfig(**SMALL, mlp_ratio=5, image_size=12, num_register_tokens=1, use_swiglu_ffn=True),
    ),
}
# The size that the positions are made for, a wider, a taller, and one with as many patches in another arrangement.
SIZES = [(12, 12), (9, 21), (18, 6), (6, 24)]


def published_model(case):
    kind, config = CASES[case]
    return redraw_weights(kind(config), buffers=True)


def published_outputs(model, images):
    """Return tokens, and the pooled vector or the logits."""
    extra = {"interpolate_pos_encoding": True} if model.config.model_type == "vit" else {}
    with torch.no_grad():
        if isinstance(model, ViTForImageClassification):
            tokens = model.vit(images, **extra).last_hidden_state
            return tokens, model(images, **extra).logits
        result = model(images, **extra)
        return result.last_hidden_state, result.pooler_output


def model_outputs(model, images):
    with torch.no_grad():
        return model.features(images), model(images)


def assert_same(published, model, sizes=SIZES):
    for height, width in sizes:
        images = torch.randn(2, 2, height, width)
        for expected, actual in zip(published_outputs(published, images), model_outputs(model, images), strict=True):
            assert expected.abs().max() > 0.1
            torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_round_trip_through_published_folders(case, tmp_path):
    published = published_model(case)
    published.save_pretrained(tmp_path / "published")
    model = VisionTransformer.from_pretrained(tmp_path / "published")
    assert_same(published, model)

    model.save_pretrained(tmp_path / "ours")
    again, report = type(published).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    assert_same(again.eval(), model)
    # The files are equal, name by name and value by value.
    before, after = (load_file(tmp_path / side / "model.safetensors") for side in ("published", "ours"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_model_made_in_this_course_loads_in_transformers(tmp_path):
    """Models that did not come from `transformers` are published folders too."""
    config = VisionTransformerConfig(
        image_size=9, patch_size=3, channels=2, width=20, depth=2, heads=5, mlp_dim=24, classes=4, norm_eps=1e-6
    )
    model = redraw_weights(VisionTransformer(config), buffers=True)
    model.save_pretrained(tmp_path)
    assert_same(ViTForImageClassification.from_pretrained(tmp_path).eval(), model)


def test_a_non_square_image_size(tmp_path):
    """Positions of a non-square grid are used unchanged; the published class cannot resize them."""
    kind, config = ViTModel, ViTConfig(**SMALL, intermediate_size=28, image_size=(6, 15))
    published = redraw_weights(kind(config), buffers=True)
    published.save_pretrained(tmp_path / "published")
    model = VisionTransformer.from_pretrained(tmp_path / "published")
    images = torch.randn(2, 2, 6, 15)
    with torch.no_grad():
        torch.testing.assert_close(model.features(images), published(images).last_hidden_state, atol=1e-5, rtol=0)
    model.save_pretrained(tmp_path / "ours")
    again = kind.from_pretrained(tmp_path / "ours")
    assert list(again.config.image_size) == [6, 15]


def test_masked_patches_are_replaced_by_the_mask_token(tmp_path):
    published = published_model("registers")
    published.save_pretrained(tmp_path)
    model = VisionTransformer.from_pretrained(tmp_path)
    images, masked = torch.randn(2, 2, 12, 9), torch.rand(2, 12) < 0.5
    with torch.no_grad():
        expected = published(images, bool_masked_pos=masked).last_hidden_state
        torch.testing.assert_close(model.features(images, masked), expected, atol=1e-4, rtol=0)
        assert (model.features(images) - expected).abs().max() > 0.1


def test_round_trip_of_deit(tmp_path):
    config = DeiTConfig(**SMALL, intermediate_size=28, image_size=12, num_labels=7)
    published = redraw_weights(DeiTForImageClassificationWithTeacher(config), buffers=True)
    published.save_pretrained(tmp_path / "published")
    model = VisionTransformer.from_pretrained(tmp_path / "published")
    model.save_pretrained(tmp_path / "ours")
    again, report = type(published).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    for height, width in SIZES:
        images = torch.randn(2, 2, height, width)
        with torch.no_grad():
            for other in (published, again.eval()):
                expected = other(images, interpolate_pos_encoding=True)
                class_logits, distillation_logits = model.head_logits(images)
                torch.testing.assert_close(class_logits, expected.cls_logits, atol=1e-4, rtol=0)
                torch.testing.assert_close(distillation_logits, expected.distillation_logits, atol=1e-4, rtol=0)
                torch.testing.assert_close(model(images), expected.logits, atol=1e-4, rtol=0)


MAE_CONFIG = ViTMAEConfig(
    **SMALL,
    intermediate_size=28,
    image_size=12,
    decoder_hidden_size=12,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=3,
    decoder_intermediate_size=20,
    mask_ratio=0.6,
    norm_pix_loss=True,
    qkv_bias=False,
)


def assert_same_autoencoder(published, model):
    images, noise = torch.randn(3, 2, 12, 12), torch.rand(3, 16)
    with torch.no_grad():
        expected = published(images, noise=noise)
        loss, predictions, masked = model(images, noise)
    torch.testing.assert_close(predictions, expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(loss, expected.loss, atol=1e-4, rtol=0)
    assert torch.equal(masked.float(), expected.mask)


@pytest.mark.parametrize("spelling", ["fresh", "published", "in memory"])
def test_round_trip_of_a_masked_autoencoder(spelling, tmp_path):
    """A fresh save of version 5 names the decoder's layers `decoder_encoder.layer`; published files do not."""
    published = redraw_weights(ViTMAEForPreTraining(MAE_CONFIG), buffers=True)
    published.save_pretrained(tmp_path / "published")
    if spelling == "published":
        rewrite_names(tmp_path / "published", lambda name: name.replace("decoder_encoder.layer", "decoder_layers"))
    if spelling == "in memory":
        save_file(published.state_dict(), tmp_path / "published" / "model.safetensors")
    model = MaskedAutoencoder.from_pretrained(tmp_path / "published")
    assert_same_autoencoder(published, model)
    model.save_pretrained(tmp_path / "ours")
    assert any("decoder.decoder_layers.1.attention.attention.query" in name for name in names_in(tmp_path / "ours"))
    again, report = ViTMAEForPreTraining.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    assert_same_autoencoder(again.eval(), model)


def test_fixed_positions_equal_those_of_published_autoencoders(tmp_path):
    """Column first, as in the original code; the function in `transformers` has the row first."""
    (tmp_path / "config.json").write_text(MAE_CONFIG.to_json_string())
    model = MaskedAutoencoder(config_mapping.read_autoencoder_config(tmp_path))
    for actual, width in ((model.encoder.positions, 20), (model.decoder_positions, 12)):
        row_first = build_2d_sinusoidal_position_embedding(4, 4, width, cls_token=True)
        torch.testing.assert_close(actual, torch.cat([row_first[:, width // 2 :], row_first[:, : width // 2]], dim=1))
    images = torch.randn(2, 2, 12, 12)
    assert torch.equal(patchify(images, 3), ViTMAEForPreTraining(MAE_CONFIG).patchify(images))


# ── Published files differ from a fresh save ──────────────────────────────────────────────────────────────────────────


def rewrite_names(folder, rename):
    tensors = load_file(folder / "model.safetensors")
    save_file({rename(name): tensor for name, tensor in tensors.items()}, folder / "model.safetensors")


def names_in(folder):
    return load_file(folder / "model.safetensors").keys()


@pytest.mark.parametrize("case", CASES)
def test_names_of_the_modules_in_memory_are_read(case, tmp_path):
    """Files written from a state dict by version 5: `layers.0.attention.q_proj`, gate and up projections apart."""
    published = published_model(case)
    published.save_pretrained(tmp_path)
    save_file(published.state_dict(), tmp_path / "model.safetensors")
    assert_same(published, VisionTransformer.from_pretrained(tmp_path), sizes=SIZES[:2])


def test_a_config_as_published_with_version_4(tmp_path):
    """A config of 2021: `torch_dtype` instead of `dtype`, no pooler settings, no qkv_bias."""
    published = published_model("vit")
    published.save_pretrained(tmp_path)

    def age(config):
        for name in ("dtype", "pooler_act", "pooler_output_size", "encoder_stride", "qkv_bias", "layer_norm_eps"):
            config.pop(name)
        config |= {"torch_dtype": "float32", "transformers_version": "4.13.0.dev0"}

    rewrite_config(tmp_path, age)
    model = VisionTransformer.from_pretrained(tmp_path)
    assert model.config.norm_eps == 1e-12
    assert_same(published, model)


def test_class_names_are_read_and_written(tmp_path):
    config = ViTConfig(**SMALL, intermediate_size=28, image_size=12, id2label={0: "cat", 1: "dog", 2: "axolotl"})
    ViTForImageClassification(config).save_pretrained(tmp_path / "published")
    model = VisionTransformer.from_pretrained(tmp_path / "published")
    assert model.config.labels == ("cat", "dog", "axolotl")
    model.save_pretrained(tmp_path / "ours")
    again = ViTConfig.from_pretrained(tmp_path / "ours")
    assert again.id2label == config.id2label
    assert again.label2id == {"cat": 0, "dog": 1, "axolotl": 2}


@pytest.mark.parametrize(("settings", "classes"), [({"num_labels": 7}, 7), ({}, 2)])
def test_classes_that_have_no_names(settings, classes, tmp_path):
    """Configs before version 4 have a number of classes, and those of two classes nothing."""
    config = ViTConfig(**SMALL, intermediate_size=28, image_size=12, num_labels=classes)
    ViTForImageClassification(config).save_pretrained(tmp_path)

    def strip(config):
        for name in ("id2label", "label2id"):
            config.pop(name, None)
        config.update(settings)

    rewrite_config(tmp_path, strip)
    assert VisionTransformer.from_pretrained(tmp_path).head.out_features == classes


def test_a_config_that_leaves_every_default_out(tmp_path):
    """A published config may contain the type only: then the class's defaults apply."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2", "architectures": ["Dinov2Model"]}))
    config = config_mapping.read_config(tmp_path)
    published = Dinov2Config()
    assert (config.width, config.depth, config.heads, config.mlp_dim) == (768, 12, 12, 3072)
    assert (config.patch_size, config.image_size, config.norm_eps) == (published.patch_size, published.image_size, 1e-6)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2_with_registers"}))
    registers = config_mapping.read_config(tmp_path)
    assert (registers.patch_size, registers.registers) == (Dinov2WithRegistersConfig().patch_size, 4)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit_mae"}))
    autoencoder = config_mapping.read_autoencoder_config(tmp_path)
    assert (autoencoder.mask_ratio, autoencoder.normalize, autoencoder.decoder_mlp_dim) == (0.75, False, 2048)


def test_the_published_giant_has_its_published_size(tmp_path):
    """DINOv2 ViT-g/14: 1,136,480,768 parameters, its SwiGLUs 4,096 wide."""
    giant = Dinov2Config(
        hidden_size=1536, num_hidden_layers=40, num_attention_heads=24, image_size=518, use_swiglu_ffn=True
    )
    (tmp_path / "config.json").write_text(giant.to_json_string())
    config = config_mapping.read_config(tmp_path)
    assert config.mlp_dim == 4096
    with torch.device("meta"):
        model = VisionTransformer(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_136_480_768


def test_published_register_configs_name_their_interpolation(tmp_path):
    published = published_model("registers")
    published.save_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: config.update(interpolate_antialias=True, interpolate_offset=0.0))
    assert_same(published, VisionTransformer.from_pretrained(tmp_path))
    rewrite_config(tmp_path, lambda config: config.update(interpolate_offset=0.1))
    with pytest.raises(CourseError, match=r"interpolate_offset is 0\.1"):
        VisionTransformer.from_pretrained(tmp_path)


def test_a_vit_without_its_pooler(tmp_path):
    """DINO's files are of class ViTModel and hold no pooler; nothing in their config says so."""
    published = redraw_weights(ViTModel(CASES["vit"][1], add_pooling_layer=False), buffers=True)
    published.save_pretrained(tmp_path)
    model = VisionTransformer.from_pretrained(tmp_path)
    images = torch.randn(2, 2, 12, 12)
    with torch.no_grad():
        expected = published(images).last_hidden_state
        torch.testing.assert_close(model.features(images), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(model(images), expected[:, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files(dtype, tmp_path):
    published = published_model("dinov2, swiglu").to(dtype)
    published.save_pretrained(tmp_path)
    assert_same(published.float(), VisionTransformer.from_pretrained(tmp_path))
    assert VisionTransformer.from_pretrained(tmp_path, dtype=dtype).norm.weight.dtype == dtype


# ── What does not fit ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_missing_surplus_and_misshaped_weights_are_listed(tmp_path):
    published_model("vit").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["encoder.layer.3.layernorm_before.weight"] = torch.zeros(20)
    del tensors["encoder.layer.1.attention.output.dense.bias"]
    tensors["embeddings.position_embeddings"] = torch.zeros(1, 26, 20)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CourseError) as raised:
        VisionTransformer.from_pretrained(tmp_path)
    for line in (
        "surplus: encoder.layer.3.layernorm_before.weight [20]",
        "missing: encoder.layer.1.attention.output.dense.bias [20]",
        "mis-shaped: embeddings.position_embeddings is [1, 26, 20], expected [1, 17, 20]",
    ):
        assert line in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "'bert'"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"patch_size": [3, 4]}, "square"),
        ({"pooler_output_size": 10}, "pooler_output_size is 10"),
    ],
)
def test_another_model_is_refused(change, message, tmp_path):
    published_model("vit").save_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: config.update(change))
    with pytest.raises(CourseError, match=message):
        VisionTransformer.from_pretrained(tmp_path)


def test_a_dinov2_with_a_head_is_refused(tmp_path):
    Dinov2ForImageClassification(CASES["dinov2"][1]).save_pretrained(tmp_path)
    with pytest.raises(CourseError, match="without a head"):
        VisionTransformer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"positions": "rotary"},
        {"pooling": "mean"},
        {"registers": 2},
        {"swiglu": True},
        {"pre_norm": True},
        {"patch_bias": False},
        {"activation": "quick_gelu"},
        {"dropout": 0.1},
        {"layer_scale": 1.0, "mlp_dim": 41},
    ],
)
def test_a_model_without_a_published_class_cannot_be_saved(change, tmp_path):
    plain = VisionTransformerConfig(image_size=8, patch_size=4, width=20, depth=1, heads=5, mlp_dim=40)
    model = VisionTransformer(replace(plain, **change))
    with pytest.raises(CourseError, match=r"no published class|no integer mlp_ratio"):
        model.save_pretrained(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
