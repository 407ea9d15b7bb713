"""Equality with `InternVLForConditionalGeneration`, both ways: every parameter is redrawn at random first."""

import json
from dataclasses import fields

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLVisionConfig, Qwen3Config

from lessons.lesson_10_internvl.model import InternVL, config_mapping
from lessons.lesson_10_internvl.tests.small_models import IMAGE, LARGE, image, published_model, random_tiles, rows
from shared.errors import CourseError
from shared.pretrained import NO_EFFECT
from shared.testing import rewrite_config
from shared.transformer import Sampling


def close(actual, expected, tolerance=1e-4):
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


def round_trip(published, folder):
    """Load the published model, write it again, and read that with the published class."""
    published.save_pretrained(folder / "published")
    model = InternVL.from_pretrained(folder / "published")
    model.save_pretrained(folder / "written")
    again, report = InternVLForConditionalGeneration.from_pretrained(folder / "written", output_loading_info=True)
    assert not any(report.values()), report
    before, after = (load_file(folder / side / "model.safetensors") for side in ("published", "written"))
    assert len(before) == len(after)
    assert all(any(torch.equal(tensor, other) for other in after.values()) for tensor in before.values())
    assert InternVL.from_pretrained(folder / "written").config == model.config
    return model, again.eval()


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("vision", [{}, LARGE], ids=["small vision", "large vision"])
@pytest.mark.parametrize("language", ["qwen2", "qwen3", "llama"])
@torch.no_grad()
def test_text_and_several_images(language, vision, tied, tmp_path):
    published = published_model(language, vision, tie_word_embeddings=tied)
    model, again = round_trip(published, tmp_path)
    token_ids, tiles, segments = rows()
    logits, real = model(token_ids, tiles, segments=segments), segments >= 0
    for other in (published, again):
        expected = other(input_ids=token_ids, pixel_values=tiles, attention_mask=real.long()).logits
        close(logits[real], expected[real])


@pytest.mark.parametrize("language", ["qwen2", "qwen3", "llama"])
@torch.no_grad()
def test_fractional_positions(language, tmp_path):
    """The published class has no V2PE, but its rotary embedding computes the positions that it is given."""
    published = published_model(language)
    published.save_pretrained(tmp_path)
    model = InternVL.from_pretrained(tmp_path)
    token_ids, tiles, segments = rows()
    real, image_steps = segments >= 0, torch.tensor([1 / 4, 1 / 16, 1 / 256])
    tokens = model.tile_encoder(tiles).embeddings
    positions = model.prompt(token_ids, tokens, image_steps, segments).positions
    assert (positions % 1 != 0).any()
    arguments = {"input_ids": token_ids, "pixel_values": tiles, "attention_mask": real.long()}
    expected = published(**arguments, position_ids=positions).logits
    logits = model(token_ids, tiles, image_steps, segments)
    close(logits[real], expected[real])
    plain = model(token_ids, tiles, segments=segments)
    assert (logits - plain)[real].abs().max() > 1e-2


@pytest.mark.parametrize(
    ("vision", "outer"),
    [
        ({"use_mean_pooling": False}, {}),
        ({"use_mean_pooling": False}, {"vision_feature_layer": 3}),
        ({}, {"vision_feature_layer": -2}),
        ({}, {"vision_feature_layer": -4}),
        ({"attention_bias": False, "hidden_act": "silu"}, {"projector_hidden_act": "gelu_pytorch_tanh"}),
        ({"use_absolute_position_embeddings": False, "hidden_act": "quick_gelu"}, {"projector_hidden_act": "silu"}),
        ({"norm_type": "rms_norm", "use_mean_pooling": False}, {"downsample_ratio": 0.25}),
        ({"use_qk_norm": True}, {"downsample_ratio": 1.0}),
    ],
)
@torch.no_grad()
def test_other_settings(vision, outer, tmp_path):
    published = published_model(vision=vision, **outer)
    model, again = round_trip(published, tmp_path)
    tokens = int(16 * outer.get("downsample_ratio", 0.5) ** 2)
    assert model.config.tile_tokens == tokens
    token_ids, tiles = torch.tensor([[1, *image(2, tokens), 3, 4]]), random_tiles(2)
    logits = model(token_ids, tiles)
    for other in (published, again):
        close(logits, other(input_ids=token_ids, pixel_values=tiles).logits)


@torch.no_grad()
def test_tiles_of_another_size(tmp_path):
    """Learned positions are resized; 8 × 8 patches of 3 pixels."""
    published = published_model()
    published.save_pretrained(tmp_path)
    model = InternVL.from_pretrained(tmp_path)
    tiles = random_tiles(1, 24)
    token_ids = torch.tensor([[1, *image(1, 16), 3]])
    close(model(token_ids, tiles), published(input_ids=token_ids, pixel_values=tiles).logits)
    with pytest.raises(ValueError, match="image 25×25 does not divide into patches of 3"):
        model(token_ids, random_tiles(1, 25))


@pytest.mark.parametrize("language", ["qwen2", "qwen3", "llama"])
@torch.no_grad()
def test_answers_token_for_token(language, tmp_path):
    published = published_model(language)
    # Large embeddings, so that each token depends on the one before it.
    published.model.language_model.embed_tokens.weight.mul_(6)
    published.lm_head.weight.mul_(6)
    published.save_pretrained(tmp_path)
    model = InternVL.from_pretrained(tmp_path)
    texts = [([1, 2, *image(1), 3, 4], 1), ([*image(2), 7, *image(1), 5], 3), ([7, 8, 9], 0)]
    prompts, expected = [], []
    for seed, (text, count) in enumerate(texts):
        token_ids, tiles = torch.tensor([text]), random_tiles(count, seed=seed) if count else None
        prompts.append(model.prompt(token_ids, None if tiles is None else model.tile_encoder(tiles).embeddings))
        options = {"do_sample": False, "max_new_tokens": 9, "min_new_tokens": 9, "pad_token_id": 0}
        arguments = {"input_ids": token_ids, "attention_mask": torch.ones_like(token_ids)}
        images = {"pixel_values": tiles} if count else {}
        output = published.generate(**arguments, **images, **options)
        expected.append(output[0, len(text) :].tolist())
    assert len({tuple(tokens) for tokens in expected}) == 3 and max(len(set(tokens)) for tokens in expected) > 2
    for use_cache in (True, False):
        answers = model.answer(prompts, Sampling(max_new_tokens=9), use_cache=use_cache)
        assert [answer.tolist() for answer in answers] == expected
        alone = [model.answer([prompt], Sampling(max_new_tokens=9), use_cache=use_cache)[0] for prompt in prompts]
        assert [answer.tolist() for answer in alone] == expected


# ── Files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_names_of_the_public_files_are_written_and_all_are_read(tmp_path):
    published_model("qwen3").save_pretrained(tmp_path / "published")
    model = InternVL.from_pretrained(tmp_path / "published")
    model.save_pretrained(tmp_path / "written")
    weights = load_file(tmp_path / "written" / "model.safetensors")
    assert {
        "vision_tower.encoder.layer.0.lambda_1",
        "vision_tower.embeddings.cls_token",
        "multi_modal_projector.layer_norm.bias",
        "language_model.model.layers.1.self_attn.q_norm.weight",
        "language_model.lm_head.weight",
    } < set(weights)
    later = {
        "lm_head.weight" if "lm_head" in name else "model." + name.replace(".model.", "."): tensor
        for name, tensor in weights.items()
    }
    save_file(later, tmp_path / "written" / "model.safetensors")
    again = InternVL.from_pretrained(tmp_path / "written")
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))


def test_without_a_setting_the_weights_decide_whether_the_embeddings_are_tied(tmp_path):
    for tied in (False, True):
        published = published_model(tie_word_embeddings=tied)
        folder = tmp_path / str(tied)
        published.save_pretrained(folder)
        rewrite_config(folder, lambda config: config.pop("tie_word_embeddings", None))
        model = InternVL.from_pretrained(folder)
        assert model.config.language.tied is tied
        token_ids, tiles, segments = rows()
        again = InternVLForConditionalGeneration.from_pretrained(folder).eval()
        with torch.no_grad():
            expected = again(input_ids=token_ids, pixel_values=tiles, attention_mask=(segments >= 0).long()).logits
            close(model(token_ids, tiles, segments=segments)[segments >= 0], expected[segments >= 0])


def test_a_config_that_leaves_every_default_out(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "internvl"}))
    config = config_mapping.parse_internvl_config({"model_type": "internvl"}, "a folder")
    published = InternVLConfig()
    assert config.tile_tokens == published.image_seq_length == 256
    assert config.vision.width == published.vision_config.hidden_size and config.language.tied
    assert config.language.mlp_dim == published.text_config.intermediate_size and config.language.qkv_bias
    assert config.vision.qkv_bias is published.vision_config.attention_bias is False


def test_the_tables_have_a_row_for_every_setting_of_the_published_class():
    for rows_, config in ((config_mapping.VISION, InternVLVisionConfig), (config_mapping.QWEN3, Qwen3Config)):
        names = {row.published for row in rows_} | {"head_dim"}
        assert ({field.name for field in fields(config)} - NO_EFFECT) | {"head_dim"} == names
    outer = {row.published for row in config_mapping.OUTER} | set(config_mapping.PARTS)
    assert {field.name for field in fields(InternVLConfig)} - NO_EFFECT == outer


REFUSED = [
    ({"vision_config": {"use_mask_token": True}}, "use_mask_token is True, supported is only False"),
    ({"vision_config": {"image_size": [14, 20]}}, r"image_size is \[14, 20\], expected equal sides"),
    ({"vision_config": {"patch_size": [3, 2]}}, "patch_size is .* expected equal sides"),
    ({"vision_config": {"patch_size": 4}}, "3 patches along one side do not divide into squares of 2"),
    ({"vision_config": {"patch_size": 15}}, "image_size 14 is smaller than patch_size 15"),
    ({"vision_config": {"norm_type": "batch_norm"}}, "norm_type is 'batch_norm', expected one of layer_norm, rms_norm"),
    ({"vision_config": {"hidden_act": "swish"}}, "hidden_act is 'swish'"),
    ({"vision_config": {"num_attention_heads": 3}}, "width 20 does not divide into 3 heads"),
    ({"vision_config": {"head_dim": 5}}, "head_dim is 5, supported is only 4"),
    ({"vision_config": {"use_mean_pooling": None}}, "use_mean_pooling is null, expected true or false"),
    ({"vision_config": {"model_type": "siglip_vision_model"}}, "siglip_vision_model"),
    ({"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy is 'full'"),
    ({"vision_feature_layer": [-1, -2]}, r"vision_feature_layer is \[-1, -2\]"),
    ({"vision_feature_layer": 0}, "vision_feature_layer is 0, expected a whole number that is not 0"),
    ({"vision_feature_layer": 4}, "feature_layer is 4; the vision encoder has the hidden states 0 to 3"),
    ({"downsample_ratio": 0.3}, "downsample_ratio is 0.3, expected 1, 0.5, 0.25 or 0.125"),
    ({"downsample_ratio": 0.125}, "4 patches along one side do not divide into squares of 8"),
    ({"projector_hidden_act": "tanh"}, "projector_hidden_act is 'tanh'"),
    ({"text_config": {"use_sliding_window": True}}, "use_sliding_window is True"),
    ({"text_config": {"attention_bias": True}}, "attention_bias is True"),
    ({"text_config": {"layer_types": ["sliding_attention"] * 2}}, "layer_types"),
    ({"text_config": {"rope_parameters": {"rope_type": "longrope"}}}, "'longrope'; supported are"),
    ({"text_config": {"num_key_value_heads": 4}}, "6 query heads share 4 key heads"),
    ({"text_config": {"model_type": "qwen3_moe"}}, "qwen3_moe"),
    ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ({"model_type": "internvl_chat"}, "'internvl_chat'; expected internvl"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_is_not_supported_is_refused_by_name(change, message, tmp_path):
    published_model("qwen3").save_pretrained(tmp_path)

    def update(config, change=change):
        for name, value in change.items():
            if isinstance(value, dict) and isinstance(config.get(name), dict):
                update(config[name], value)
            else:
                config[name] = value

    rewrite_config(tmp_path, update)
    with pytest.raises(CourseError, match=message):
        InternVL.from_pretrained(tmp_path)


def test_the_image_token_needs_as_many_visual_tokens(tmp_path):
    published_model().save_pretrained(tmp_path)
    model = InternVL.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the text has 3 image tokens, but the images take 4"):
        model(torch.tensor([[IMAGE, IMAGE, IMAGE]]), random_tiles(1))
