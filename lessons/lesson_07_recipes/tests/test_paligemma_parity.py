"""Parity with `PaliGemmaForConditionalGeneration` over Gemma and Gemma 2, images included, in both directions."""

import json
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model import clip_vision_config, siglip_vision_config
from lessons.lesson_07_recipes.model.gemma import Gemma, gemma2_config, gemma_config
from lessons.lesson_07_recipes.model.paligemma import PaliGemma, prefix_spans
from lessons.lesson_07_recipes.model.paligemma_config_mapping import (
    PaliGemmaConfig as Config,
)
from lessons.lesson_07_recipes.model.paligemma_config_mapping import (
    parse_paligemma_config,
    write_paligemma_config,
)
from shared.attention import Mask
from shared.errors import CourseError
from shared.testing import redraw_weights, rewrite_config
from shared.transformer import Sampling

IMAGE = 36
PATCHES = 16
VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 10,
    "image_size": 12,
    "patch_size": 3,
    "vision_use_head": False,
}
TEXT = {
    "model_type": "gemma",
    "hidden_size": 20,
    "num_hidden_layers": 4,
    "num_attention_heads": 5,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "intermediate_size": 24,
    "vocab_size": 37,
    "max_position_embeddings": 64,
}
GEMMA2 = TEXT | {"model_type": "gemma2", "sliding_window": 21, "query_pre_attn_scalar": 11}
GEMMA2 |= {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.5}
CONFIG = {"vision_config": VISION, "text_config": TEXT, "projection_dim": 20, "image_token_index": IMAGE}
CASES = {
    "gemma": CONFIG,
    "gemma, untied": CONFIG | {"tie_word_embeddings": False},
    "gemma, image token outside of the vocabulary": CONFIG | {"image_token_index": 40},
    "gemma, unused pooling head": CONFIG | {"vision_config": VISION | {"vision_use_head": True}},
    "gemma, odd images": CONFIG | {"vision_config": VISION | {"image_size": 14, "num_channels": 2}},
    "gemma 2": CONFIG | {"text_config": GEMMA2},
    "gemma 2, untied": CONFIG | {"text_config": GEMMA2, "tie_word_embeddings": False},
}


def published_model(case):
    torch.manual_seed(3)
    return redraw_weights(PaliGemmaForConditionalGeneration(PaliGemmaConfig(**CASES[case])), gain=0.3)


def load(published, folder, change=lambda config: None):
    """Return our model from a saved folder, whose config may be changed before."""
    published.save_pretrained(folder)
    rewrite_config(folder, change)
    return PaliGemma.from_pretrained(folder)


def example(model, *, images=1, prompt=4, answer=6, rows=2):
    """Return pixels, token ids (images, prompt, answer) and token types."""
    vision = model.vision_encoder.config
    pixels = torch.randn(rows * images, vision.channels, *vision.image_sides)
    text = torch.randint(3, IMAGE, (rows, prompt + answer))
    token_ids = torch.cat([torch.full((rows, images * PATCHES), model.image_token_id), text], dim=1)
    types = torch.ones_like(token_ids)
    types[:, : images * PATCHES + prompt] = 0
    return pixels, token_ids, types


@torch.no_grad()
def assert_equal_logits(model, published, **sizes):
    pixels, token_ids, types = example(model, **sizes)
    expected = published(input_ids=token_ids, pixel_values=pixels, token_type_ids=types).logits
    assert expected.std() > 0.05
    torch.testing.assert_close(model(pixels, token_ids, types), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_a_published_folder_gives_equal_logits_and_is_written_back(case, tmp_path):
    published = published_model(case)
    model = load(published, tmp_path / "published")
    assert_equal_logits(model, published)
    assert_equal_logits(model, published, prompt=1, answer=1)
    model.save_pretrained(tmp_path / "ours")
    weights = load_file(tmp_path / "ours" / "model.safetensors")
    assert all(name.startswith(("vision_tower.vision_model.", "language_model.", "multi_modal")) for name in weights)
    again, report = PaliGemmaForConditionalGeneration.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    assert_equal_logits(model, again.float().eval())
    torch.testing.assert_close(
        dict(PaliGemma.from_pretrained(tmp_path / "ours").named_parameters()), dict(model.named_parameters())
    )


@torch.no_grad()
def test_two_images_per_row_are_one_prefix_if_the_window_allows(tmp_path):
    published = published_model("gemma, untied")
    assert_equal_logits(load(published, tmp_path), published, images=2)


@pytest.mark.parametrize("case", ["gemma", "gemma 2"])
@torch.no_grad()
def test_padded_rows_equal_those_of_transformers(case, tmp_path):
    published = published_model(case)
    model = load(published, tmp_path)
    pixels, token_ids, types = example(model)
    attention_mask = torch.ones_like(token_ids)
    attention_mask[1, -5:] = 0
    expected = published(
        input_ids=token_ids, pixel_values=pixels, token_type_ids=types, attention_mask=attention_mask
    ).logits
    actual = model(pixels, token_ids, types, segments=attention_mask - 1)
    torch.testing.assert_close(actual[attention_mask == 1], expected[attention_mask == 1], atol=1e-4, rtol=0)


@torch.no_grad()
def test_packed_examples_equal_separate_ones(tmp_path):
    model = load(published_model("gemma 2"), tmp_path)
    pixels, token_ids, types = example(model)
    separate = model(pixels, token_ids, types)
    segments = torch.arange(2).repeat_interleave(token_ids.shape[1])[None]
    packed = model(pixels, token_ids.reshape(1, -1), types.reshape(1, -1), segments)
    torch.testing.assert_close(packed.reshape(separate.shape), separate, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", ["gemma, untied", "gemma 2, untied"])
@torch.no_grad()
def test_generation_equals_that_of_transformers_beyond_the_window(case, tmp_path):
    published = published_model(case)
    model = load(published, tmp_path)
    pixels, token_ids, types = example(model, answer=0, rows=3)
    settings = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = published.generate(
        input_ids=token_ids,
        pixel_values=pixels,
        token_type_ids=types,
        attention_mask=torch.ones_like(token_ids),
        **settings,
    )[:, token_ids.shape[1] :]
    assert len(expected.unique()) > 4
    features = list(model.image_features(pixels)[:, None])
    for use_cache in (True, False):
        answers = model.answer(list(token_ids), features, Sampling(20), use_cache=use_cache)
        assert torch.equal(torch.stack(answers), expected)


@torch.no_grad()
def test_a_batch_of_prompts_of_different_lengths_gives_the_same_answers_as_one_at_a_time(tmp_path):
    model = load(published_model("gemma 2, untied"), tmp_path)
    pixels, token_ids, _ = example(model, answer=0, rows=3, prompt=5)
    prompts = [token_ids[0], token_ids[1, : PATCHES + 1], token_ids[2, PATCHES:]]
    features = [*model.image_features(pixels[:2])[:, None], None]
    together = model.answer(prompts, features, Sampling(12))
    for prompt, feature, answer in zip(prompts, features, together, strict=True):
        assert model.answer([prompt], [feature], Sampling(12))[0].tolist() == answer.tolist()
        assert model.answer([prompt], [feature], Sampling(12), use_cache=False)[0].tolist() == answer.tolist()


@torch.no_grad()
def test_a_window_limits_the_prefix_in_both_directions_too(tmp_path):
    """The published language model with the masks of the authors' code: prefix and window apply together."""
    published = published_model("gemma 2")
    model = load(published, tmp_path, lambda config: config["text_config"].update(sliding_window=6))
    pixels, token_ids, types = example(model)
    embeddings = model.input_embeddings(token_ids, model.image_features(pixels))
    segments = torch.zeros_like(types)
    spans = prefix_spans(types, segments)
    masks = {}
    for kind, window in (("full_attention", None), ("sliding_attention", 6)):
        visible = Mask(causal=True, window=window, span_q=spans, span_k=spans).visible(*types.shape[1:] * 2)
        masks[kind] = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo().min)[:, None]
    positions = torch.arange(1, types.shape[1] + 1)[None]
    inner = published.model.language_model
    states = inner(inputs_embeds=embeddings, attention_mask=masks, position_ids=positions).last_hidden_state
    expected = 2.5 * torch.tanh(published.lm_head(states) / 2.5)
    torch.testing.assert_close(model(pixels, token_ids, types), expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_positions_count_from_one_and_only_text_is_scaled(tmp_path):
    model = load(published_model("gemma"), tmp_path)
    pixels, token_ids, types = example(model)
    positions = []
    model.language_model.rotary.register_forward_pre_hook(lambda _, arguments: positions.append(arguments[0]))
    model(pixels, token_ids, types)
    assert positions[0].flatten().tolist() == list(range(1, token_ids.shape[1] + 1))
    features = model.image_features(pixels)
    embeddings = model.input_embeddings(token_ids, features)
    torch.testing.assert_close(embeddings[:, :PATCHES], model.projector(features))
    text = model.language_model.embedding.weight[token_ids[:, PATCHES:]]
    torch.testing.assert_close(embeddings[:, PATCHES:], text * 20**0.5)


def renamed(folder, rename):
    weights = load_file(folder / "model.safetensors")
    save_file({rename(name): tensor for name, tensor in weights.items()}, folder / "model.safetensors")


GENERATIONS = {
    "first": lambda name: re.sub("^vision_tower.(?!vision_model)", "vision_tower.vision_model.", name),
    "second": lambda name: re.sub(
        "^model.vision_tower.", "model.vision_tower.vision_model.", GENERATIONS["third"](name)
    ),
    "third": lambda name: (
        "lm_head.weight"
        if name.endswith("lm_head.weight")
        else f"model.{name.replace('language_model.model.', 'language_model.').replace('vision_model.', '')}"
    ),
}


@pytest.mark.parametrize("case", ["gemma, untied", "gemma 2", "gemma, unused pooling head"])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_published_spelling_of_the_weights_is_read(generation, case, tmp_path):
    published = published_model(case)
    published.save_pretrained(tmp_path)
    renamed(tmp_path, GENERATIONS[generation])
    assert_equal_logits(PaliGemma.from_pretrained(tmp_path), published)


def test_published_configs_of_2024_are_read(tmp_path):
    """PaliGemma's first files leave out most settings of the parts and have some that no class reads."""
    text = {key: TEXT[key] for key in TEXT if key != "max_position_embeddings"}
    published = redraw_weights(
        PaliGemmaForConditionalGeneration(PaliGemmaConfig(**CONFIG | {"text_config": text})), gain=0.3
    )

    def to_2024(config):
        config.clear()
        extra = {"num_image_tokens": PATCHES, "torch_dtype": "float32"}
        vision = VISION | extra | {"projection_dim": 20, "projector_hidden_act": "gelu_fast"}
        config.update(model_type="paligemma", vision_config=vision, text_config=text | extra, projection_dim=20)
        config.update(image_token_index=IMAGE, hidden_size=20, ignore_index=-100, _vocab_size=37, pad_token_id=0)

    assert_equal_logits(load(published, tmp_path, to_2024), published)


def test_the_number_of_parameters_of_the_published_models():
    """PaliGemma 3B at 224 pixels and PaliGemma 2 3B, with the 64 + 1,024 + 128 new rows of the embedding."""
    vision = siglip_vision_config(width=1152, depth=27, heads=16, mlp_dim=4304, image_size=224, patch_size=14)
    languages = {2_923_466_480: gemma_config(vocab_size=257_216), 3_032_242_416: gemma2_config(vocab_size=257_216)}
    for expected, language in languages.items():
        with torch.device("meta"):
            encoder = VisionTransformer(replace(vision, pooling="mean"))
            model = PaliGemma(encoder, nn.Linear(1152, language.width), Gemma(language), image_token_id=257_152)
        assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llava"}, "'llava'; expected paligemma"),
        ({"projection_dim": 12}, "projection_dim is 12 in .* hidden_size 20 of text_config"),
        ({"projection_dim": "20"}, "projection_dim is '20'"),
        ({"image_token_index": -1}, "image_token_index is -1, expected a whole number of at least 0"),
        ({"tie_word_embeddings": None}, "tie_word_embeddings is null"),
        ({"text_config": TEXT | {"model_type": "llama"}}, "the text_config of .* type 'llama'"),
        ({"text_config": 3}, "text_config is 3 in config.json; expected an object"),
        ({"text_config": GEMMA2 | {"sliding_window": 0}}, "sliding_window is 0"),
        ({"text_config": GEMMA2 | {"final_logit_softcapping": 0.0}}, "final_logit_softcapping is 0.0"),
        ({"vision_config": VISION | {"model_type": "clip_vision_model"}}, "the vision_config of .*'clip_vision_model'"),
        ({"vision_config": VISION | {"num_attention_heads": 0}}, "num_attention_heads is 0"),
        ({"vision_config": VISION | {"num_attention_heads": 5}}, "does not divide into 5 heads"),
        ({"vision_config": VISION | {"image_size": 2}}, "image_size 2×2 is smaller than patch_size 3"),
    ],
)
def test_an_unsupported_or_malformed_config_is_an_error_that_names_the_setting(change, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "paligemma"} | CONFIG | change))
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(CourseError, match=message):
        PaliGemma.from_pretrained(tmp_path)


def test_missing_parts_have_the_sizes_of_the_class():
    published = PaliGemmaConfig()
    config = parse_paligemma_config({"model_type": "paligemma"}, "folder")
    assert config.vision_encoder.mlp_dim == published.vision_config.intermediate_size == 4096
    assert config.vision_encoder.grid == (16, 16) and config.image_token_id == published.image_token_index
    language, text = config.language_model, published.text_config
    assert (language.width, language.depth, language.kv_heads) == (text.hidden_size, text.num_hidden_layers, 1)
    assert (language.vocab_size, language.mlp_dim) == (text.vocab_size, text.intermediate_size)


SMALL_VISION = replace(siglip_vision_config(width=12, depth=1, heads=3, mlp_dim=8, image_size=8, patch_size=4))
SMALL_TEXT = gemma_config(vocab_size=37, width=20, depth=1, heads=2, kv_heads=1, mlp_dim=8, head_dim=8)


@pytest.mark.parametrize(
    ("vision", "language", "message"),
    [
        (SMALL_VISION, replace(SMALL_TEXT, position_offset=1), "pooling 'attention'"),
        (clip_vision_config(image_size=8, patch_size=4), replace(SMALL_TEXT, position_offset=1), "pre_norm True"),
        (replace(SMALL_VISION, pooling="mean"), SMALL_TEXT, "position_offset 0"),
        (replace(SMALL_VISION, pooling="mean"), replace(SMALL_TEXT, norm_offset=0.0), "norm_offset 0.0"),
    ],
)
def test_what_no_published_class_describes_is_not_written(vision, language, message):
    with pytest.raises(CourseError, match=message):
        write_paligemma_config(Config(vision, language, 36))


def test_another_projector_is_not_written(tmp_path):
    vision, language = replace(SMALL_VISION, pooling="mean"), replace(SMALL_TEXT, position_offset=1)
    projector = nn.Sequential(nn.Linear(12, 20), nn.GELU())
    model = PaliGemma(VisionTransformer(vision), projector, Gemma(language), image_token_id=36)
    with pytest.raises(CourseError, match=r"one linear layer as its projector; this model has .* a Sequential"):
        model.save_pretrained(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_as_many_image_tokens_as_features_are_needed(tmp_path):
    model = load(published_model("gemma"), tmp_path)
    pixels, token_ids, types = example(model)
    for wrong in (token_ids[:, 1:], token_ids.masked_fill(types == 1, model.image_token_id)):
        with pytest.raises(ValueError, match="image tokens, but the images take 32"):
            model(pixels, wrong, types[:, : wrong.shape[1]])
