"""Equality with `LlavaOnevisionForConditionalGeneration`, both ways, in odd configurations.

Every parameter is redrawn at random first: at their initial values half of a LLaVA's tensors are constant.
"""

import json
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model import clip_vision_config
from lessons.lesson_05_llava.model import Projector
from lessons.lesson_08_onevision.model import LlavaOneVision, PlaceholderIds, VisualLayout, config_mapping
from lessons.lesson_08_onevision.model.tiling import PINPOINTS
from lessons.lesson_08_onevision.tests.small_models import (
    IMAGE,
    LANGUAGES,
    SIDE,
    SIZES,
    VISION,
    example,
    published_logits,
    published_model,
)
from shared.errors import CourseError
from shared.pretrained import NO_EFFECT
from shared.testing import rewrite_config
from shared.transformer import Sampling

MIXES = {
    "several images": ([(10, 29), (51, 9), (1, 5000)], ()),
    "a video": ([], (5,)),
    "one frame": ([], (1,)),
    "an image and a video": ([(23, 31)], (3,)),
    "images and videos": ([(23, 31), (9, 9)], (2, 2)),
}


def close(logits, expected):
    assert expected.abs().max() > 0.05 and expected.std() > 0.02
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def assert_same(published, model, sizes, frames=()):
    row, features = example(model, sizes, frames)
    close(model.logits(row[0][None], features)[0], published_logits(published, [row])[0])


def load(published, folder, change=lambda config: None):
    published.save_pretrained(folder)
    rewrite_config(folder, change)
    return LlavaOneVision.from_pretrained(folder)


def back_again(folder):
    published, report = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return published.float().eval()


# ── Images, several images, videos ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("language", LANGUAGES)
def test_images_of_every_shape_several_images_and_videos_both_ways(language, tmp_path):
    published = published_model(language)
    model = load(published, tmp_path / "published")
    model.save_pretrained(tmp_path / "ours")
    again, reread = back_again(tmp_path / "ours"), LlavaOneVision.from_pretrained(tmp_path / "ours")
    language_model = replace(model.config().language_model, head_dim=4)
    assert reread.config() == replace(model.config(), language_model=language_model)
    pooled = 0
    for size in SIZES.values():
        rows, columns = model.layout.visible_patches(size)
        pooled += model.layout.image_tokens(size) < 9 + rows * (columns + 1)
        for other in (published, again):
            assert_same(other, model, [size])
        assert_same(published, reread, [size])
    assert pooled >= (0 if language == "tied qwen2" else 2)
    for sizes, frames in MIXES.values():
        for other in (published, again):
            assert_same(other, model, sizes, frames)
        assert_same(published, reread, sizes, frames)


@torch.no_grad()
def test_features_are_those_before_the_last_norm(tmp_path):
    published = published_model("qwen2")
    model, pixels = load(published, tmp_path), torch.randn(2, 3, SIDE, SIDE)
    states = published.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    close(model.image_features(pixels), states[-1])
    assert (states[-1] - model.vision_encoder.features(pixels)).abs().max() > 0.1


@torch.no_grad()
def test_a_padded_batch_of_rows_equals_single_rows(tmp_path):
    published = published_model("qwen2")
    model = load(published, tmp_path)
    examples = [example(model, sizes, frames) for sizes, frames in [([(10, 29)], ()), ([], (4,)), ([(9, 9)] * 2, ())]]
    longest = max(len(row[0]) for row, _ in examples)
    tokens, segments = torch.ones(3, longest, dtype=torch.long), torch.full((3, longest), -1)
    for place, (row, _) in enumerate(examples):
        tokens[place, : len(row[0])], segments[place, : len(row[0])] = row[0], 0
    logits = model.logits(tokens, [visual for _, features in examples for visual in features], segments)
    for place, (row, _) in enumerate(examples):
        close(logits[place, : len(row[0])], published_logits(published, [row])[0])


@torch.no_grad()
def test_it_generates_what_the_published_class_generates(tmp_path):
    published = published_model("qwen2")
    model, replies = load(published, tmp_path), []
    for frames in (1, 2, 3, 5):
        (token_ids, _, videos), features = example(model, [], (frames,))
        expected = published.generate(
            token_ids[None], pixel_values_videos=videos[0][None], max_new_tokens=9, min_new_tokens=9, do_sample=False
        )
        replies += model.answer([token_ids], [features], Sampling(9))
        assert torch.equal(replies[-1], expected[0, -9:])
    assert len(set(torch.cat(replies).tolist())) > 3


def test_token_counts_equal_those_of_the_published_processor():
    random, layout = torch.Generator().manual_seed(0), VisualLayout()
    processor = SimpleNamespace(
        image_processor=SimpleNamespace(image_grid_pinpoints=[list(size) for size in PINPOINTS]),
        num_image_tokens=729,
        vision_aspect_ratio="anyres_max_9",
    )
    processor._get_unpadded_features = lambda *args: LlavaOnevisionProcessor._get_unpadded_features(processor, *args)
    for _ in range(300):
        height, width = (10 ** (torch.rand(2, generator=random) * 4)).long().tolist()
        expected = LlavaOnevisionProcessor._get_number_of_features(processor, height, width, 384, 384)
        assert layout.image_tokens((height, width)) == expected, (height, width)
    assert layout.image_tokens((9, 9), tiled=False) == 730
    assert layout.video_tokens(32) == 32 * 196 + 1


def test_the_default_layout_is_that_of_the_published_class():
    published = LlavaOnevisionConfig()
    assert [list(size) for size in PINPOINTS] == published.image_grid_pinpoints
    config = config_mapping.parse_onevision_config({"model_type": "llava_onevision"}, "folder")
    vision, text = published.vision_config, published.text_config
    assert config.layout == VisualLayout()
    assert config.placeholders == (published.image_token_index, published.video_token_index)
    encoder, language = config.vision_encoder, config.language_model
    assert (encoder.width, encoder.depth, encoder.mlp_dim) == (1152, 26, vision.intermediate_size)
    assert (language.width, language.depth, language.vocab_size) == (
        text.hidden_size,
        text.num_hidden_layers,
        text.vocab_size,
    )


# ── Files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def rename(folder, spelled):
    file = folder / "model.safetensors"
    save_file({spelled(name): tensor for name, tensor in load_file(file).items()}, file)


def first_files(name):
    return name.replace("vision_tower.", "vision_tower.vision_model.", 1)


def later_files(name):
    if name.startswith("language_model.lm_head"):
        return name.removeprefix("language_model.")
    return "model." + name.replace("language_model.model.", "language_model.", 1)


def later_files_with_the_old_vision_names(name):
    return later_files(first_files(name))


@pytest.mark.parametrize(
    "spelled",
    [first_files, later_files, later_files_with_the_old_vision_names],
    ids=lambda spelled: spelled.__name__,
)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_spelling_of_the_names_is_read(language, spelled, tmp_path):
    published = published_model(language)
    published.save_pretrained(tmp_path)
    rename(tmp_path, spelled)
    assert_same(published, LlavaOneVision.from_pretrained(tmp_path), [SIZES["odd"]], (2,))


def test_the_names_of_2024_are_written(tmp_path):
    published = published_model("qwen2")
    load(published, tmp_path / "published").save_pretrained(tmp_path / "ours")
    rename(tmp_path / "published", first_files)
    before, after = (load_file(tmp_path / side / "model.safetensors") for side in ("published", "ours"))
    assert before.keys() == after.keys() and "image_newline" in after
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("part", ["outer", "inner"])
def test_either_setting_ties_the_output_layer(part, tmp_path):
    published = published_model("tied qwen2")
    published.save_pretrained(tmp_path)
    assert not any("lm_head" in name for name in load_file(tmp_path / "model.safetensors"))
    rewrite_config(
        tmp_path, lambda config: (config if part == "inner" else config["text_config"]).pop("tie_word_embeddings")
    )
    model = LlavaOneVision.from_pretrained(tmp_path)
    assert model.language_model.config.tied
    assert_same(published, model, [SIZES["wide"]])


def test_a_pooling_head_in_the_file_has_no_effect(tmp_path):
    published = published_model("qwen2")
    published.save_pretrained(tmp_path / "plain")
    with_head = LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(
            **{
                **json.loads((tmp_path / "plain" / "config.json").read_text()),
                "vision_config": VISION | {"vision_use_head": True},
            }
        )
    )
    missing, unexpected = with_head.load_state_dict(published.state_dict(), strict=False)
    assert missing and all("head" in name for name in missing) and not unexpected
    with_head.save_pretrained(tmp_path / "head")
    assert any("head.probe" in name for name in load_file(tmp_path / "head" / "model.safetensors"))
    assert_same(published, LlavaOneVision.from_pretrained(tmp_path / "head"), [SIZES["odd"]])


# ── Settings ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_table_has_a_row_for_every_setting_of_the_published_class():
    rows = {row.published for row in config_mapping.SETTINGS}
    assert {field.name for field in fields(LlavaOnevisionConfig)} - NO_EFFECT == rows | {"vision_config", "text_config"}


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (None, {"model_type": "llava_next"}, "'llava_next'; expected llava_onevision"),
        (None, {"projector_hidden_act": "relu"}, "projector_hidden_act is 'relu'"),
        (None, {"vision_feature_select_strategy": "default"}, "vision_feature_select_strategy is 'default'"),
        (None, {"vision_aspect_ratio": "anyres"}, "vision_aspect_ratio is 'anyres', expected 'anyres_max_'"),
        (None, {"vision_aspect_ratio": "anyres_max_0"}, "vision_aspect_ratio is 'anyres_max_0'"),
        (None, {"vision_aspect_ratio": 9}, "vision_aspect_ratio is 9"),
        (None, {"vision_feature_layer": 4}, r"vision_feature_layer is \[4\]"),
        (None, {"image_grid_pinpoints": [[SIDE, SIDE + 1]]}, "expected multiples of the vision encoder's image_size"),
        (None, {"video_token_index": IMAGE}, "are both 41"),
        (None, {"image_token_index": -1}, "image_token_index is -1"),
        ("text_config", {"model_type": "mistral"}, "'mistral'"),
        ("vision_config", {"model_type": "clip_vision_model"}, "'clip_vision_model'"),
        ("vision_config", {"image_size": 3}, "image_size 3×3 is smaller than patch_size 4"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(part, change, message, tmp_path):
    published_model().save_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: (config if part is None else config[part]).update(change))
    with pytest.raises(CourseError, match=message):
        LlavaOneVision.from_pretrained(tmp_path)


def test_a_missing_and_a_surplus_weight_are_named(tmp_path):
    published_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    newline = next(name for name in weights if name.endswith("image_newline"))
    del weights[newline]
    save_file(weights | {"extra": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CourseError, match=r"(?s)missing: .*image_newline.*extra"):
        LlavaOneVision.from_pretrained(tmp_path)


def test_what_no_published_class_describes_is_not_written(tmp_path):
    model = load(published_model(), tmp_path / "published")
    vision, config = model.vision_encoder, model.vision_encoder.config
    clip = clip_vision_config(image_size=SIDE, patch_size=4, width=20, depth=2, heads=5, mlp_dim=28)
    cases = [
        ({"vision_encoder": VisionTransformer(clip)}, "no published class supports"),
        ({"vision_encoder": VisionTransformer(replace(config, pooling="attention"))}, "no published class supports"),
        ({"vision_encoder": torch.nn.Identity()}, "has SigLIP's vision encoder; this model has a Identity"),
        ({"projector": torch.nn.Linear(20, 24)}, "two-layer MLP"),
        ({"layout": replace(model.layout, side=4)}, "no published class supports layout"),
        ({"layout": VisualLayout(SIDE - 2, 3, ((24, 24),))}, "expected multiples of the vision encoder's image_size"),
        ({"placeholders": PlaceholderIds(IMAGE, IMAGE)}, "are both 41"),
        ({"feature_layers": (9,)}, r"vision_feature_layer is \[9\]"),
    ]
    for change, message in cases:
        parts = {
            "vision_encoder": vision,
            "projector": model.projector,
            "language_model": model.language_model,
            "layout": model.layout,
            "placeholders": model.placeholders,
        }
        other = LlavaOneVision(**parts | change)
        with pytest.raises(CourseError, match=message):
            other.save_pretrained(tmp_path / "other")
        assert not (tmp_path / "other").exists()


def test_the_number_of_parameters_of_the_published_model():
    """LLaVA-OneVision 0.5B over Qwen2 0.5B."""
    config = config_mapping.parse_onevision_config(
        {
            "model_type": "llava_onevision",
            "text_config": {
                "model_type": "qwen2",
                "hidden_size": 896,
                "intermediate_size": 4864,
                "num_hidden_layers": 24,
                "num_attention_heads": 14,
                "num_key_value_heads": 2,
                "vocab_size": 152_000,
                "tie_word_embeddings": True,
            },
        },
        "folder",
    )
    with torch.device("meta"):
        model = LlavaOneVision.untrained(config)
        text = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14}
        text |= {"num_key_value_heads": 2, "vocab_size": 152_000, "tie_word_embeddings": True, "model_type": "qwen2"}
        published = LlavaOnevisionForConditionalGeneration(LlavaOnevisionConfig(text_config=text))
    assert isinstance(model.language_model, LanguageModel) and isinstance(model.projector, Projector)
    assert sum(each.numel() for each in model.parameters()) == sum(each.numel() for each in published.parameters())
