"""Equality with the published classes, both ways, in configurations odd enough that nothing is equal by accident.

Every parameter is redrawn at random first: at their initial values half of a LLaVA's tensors are constant.
"""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    Qwen2Config,
)

from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from lessons.lesson_05_llava.model import Llava, LlavaNext, Projector, config_mapping
from shared.errors import CourseError
from shared.testing import redraw_weights, rewrite_config
from shared.transformer import Decoder, DecoderConfig, Sampling

VISION = {
    "hidden_size": 20,
    "intermediate_size": 28,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "patch_size": 4,
    "layer_norm_eps": 1e-3,
}
TEXT = {
    "vocab_size": 43,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "intermediate_size": 36,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-3,
}
LANGUAGES = {
    "llama": LlamaConfig(**TEXT, rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
    "qwen2": Qwen2Config(**TEXT),
    "tied qwen2": Qwen2Config(**TEXT | {"tie_word_embeddings": True}),
}
CHOICES = {
    "llama": {},
    "qwen2": {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"},
    "tied qwen2": {"vision_feature_layer": [0, 2], "multimodal_projector_bias": False},
}
IMAGE = 41


def close(logits, expected):
    assert expected.abs().max() > 0.05
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def rename(folder, spelled):
    """Every tensor of a folder under another spelling of its name."""
    file = folder / "model.safetensors"
    save_file({spelled(name): tensor for name, tensor in load_file(file).items()}, file)


def back_again(kind, folder):
    again, report = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return again.eval()


# ── LLaVA ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def llava(language="llama"):
    vision = CLIPVisionConfig(**VISION, image_size=12)
    config = LlavaConfig(
        vision_config=vision, text_config=LANGUAGES[language], image_token_index=IMAGE, **CHOICES[language]
    )
    return redraw_weights(LlavaForConditionalGeneration(config), buffers=True)


def rows_with_images(images, patches):
    """Rows with one image, two, none, and one of text that begins with an image; padded at their ends."""
    row = [
        [3, *[IMAGE] * patches, 7, 8],
        [*[IMAGE] * patches, 5, 6, *[IMAGE] * patches, 9],
        [4, 11, 12],
        [*[IMAGE] * patches, 2],
    ]
    assert images == 4
    longest = max(map(len, row))
    tokens = torch.tensor([each + [1] * (longest - len(each)) for each in row])
    segments = torch.tensor([[0] * len(each) + [-1] * (longest - len(each)) for each in row])
    return tokens, segments


def assert_same(published, model):
    pixels = torch.randn(4, 3, 12, 12)
    tokens, segments = rows_with_images(4, 10 if model.keep_class_token else 9)
    with torch.no_grad():
        expected = published(input_ids=tokens, pixel_values=pixels, attention_mask=(segments >= 0).long()).logits
        logits = model(pixels, tokens, segments)
        close(logits[segments >= 0], expected[segments >= 0])
        plain = torch.randint(3, 40, (2, 7))
        close(model.logits(plain), published(input_ids=plain).logits)


@pytest.mark.parametrize("language", LANGUAGES)
def test_llava_both_ways(language, tmp_path):
    published = llava(language)
    published.save_pretrained(tmp_path / "theirs")
    model = Llava.from_pretrained(tmp_path / "theirs")
    assert_same(published, model)
    model.save_pretrained(tmp_path / "ours")
    assert_same(back_again(LlavaForConditionalGeneration, tmp_path / "ours"), model)
    again = Llava.from_pretrained(tmp_path / "ours")
    assert (again.feature_layers, again.keep_class_token, again.image_token_id) == (
        model.feature_layers,
        model.keep_class_token,
        IMAGE,
    )


def test_the_features_are_those_that_the_published_class_projects(tmp_path):
    published = llava()
    published.save_pretrained(tmp_path)
    model, pixels = Llava.from_pretrained(tmp_path), torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        states = published.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        close(model.image_features(pixels), states[-2][:, 1:])
        close(
            model.projector(model.image_features(pixels)),
            torch.stack(published.get_image_features(pixels).pooler_output),
        )


@pytest.mark.parametrize("language", ["llama", "tied qwen2"])
def test_it_writes_what_the_published_class_writes(language, tmp_path):
    published = llava(language)
    published.save_pretrained(tmp_path)
    model, pixels = Llava.from_pretrained(tmp_path), torch.randn(2, 3, 12, 12)
    prompts = torch.tensor([[3, *[IMAGE] * 9, 5, 6], [*[IMAGE] * 9, 8, 9, 10]])
    expected = published.generate(prompts, pixel_values=pixels, max_new_tokens=9, min_new_tokens=9, do_sample=False)
    features = model.image_features(pixels)
    replies = model.answer(list(prompts), list(features.split(1)), Sampling(9))
    assert torch.equal(torch.stack(replies), expected[:, -9:])
    assert len(set(torch.cat(replies).tolist())) > 1


def first_files(name):
    """As the files of 2023 have it, which people have downloaded."""
    return name.replace("vision_tower.", "vision_tower.vision_model.", 1)


def later_files(name):
    """As versions 4.52 to 4.57 wrote it: all under `model`, the head by itself."""
    if name.startswith("language_model.lm_head"):
        return name.removeprefix("language_model.")
    return "model." + name.replace("language_model.model.", "language_model.", 1)


def later_files_with_the_old_vision_names(name):
    return later_files(first_files(name))


SPELLINGS = [first_files, later_files, later_files_with_the_old_vision_names]


@pytest.mark.parametrize("spelled", SPELLINGS, ids=lambda spelled: spelled.__name__)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_spelling_of_the_names_is_read(language, spelled, tmp_path):
    published = llava(language)
    published.save_pretrained(tmp_path)
    rename(tmp_path, spelled)
    assert_same(published, Llava.from_pretrained(tmp_path))


def test_the_names_of_2023_are_written(tmp_path):
    published = llava()
    published.save_pretrained(tmp_path / "theirs")
    Llava.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    rename(tmp_path / "theirs", first_files)
    before, after = (load_file(tmp_path / side / "model.safetensors") for side in ("theirs", "ours"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_config_of_2023_is_read(tmp_path):
    """llava-1.5's config: defaults left out, `rope_theta` alone, the vocabulary given twice, old position counts."""
    published = llava()
    published.save_pretrained(tmp_path)
    rename(tmp_path, first_files)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(10)[None]
    tensors["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
    save_file(tensors, tmp_path / "model.safetensors")

    def age(config):
        for name in ("multimodal_projector_bias", "image_seq_length", "dtype", "vision_feature_layer"):
            del config[name]
        text = config["text_config"]
        for name in ("rope_parameters", "tie_word_embeddings", "hidden_act", "attention_bias", "head_dim"):
            text.pop(name, None)
        text |= {"rope_theta": 500.0}
        config |= {"ignore_index": -100, "vocab_size": 43, "pad_token_id": 1, "torch_dtype": "float16"}

    rewrite_config(tmp_path, age)
    assert_same(published, Llava.from_pretrained(tmp_path))


def test_settings_missing_in_a_file_have_the_class_defaults(tmp_path):
    tmp_path.joinpath("config.json").write_text(json.dumps({"model_type": "llava"}))
    model, published = config_mapping.read_llava_config(tmp_path, "llava"), LlavaConfig()
    vision_encoder, text_config = published.vision_config, published.text_config
    assert (model.vision_encoder.width, model.vision_encoder.depth, model.vision_encoder.mlp_dim) == (1024, 24, 4096)
    assert (
        (model.vision_encoder.image_size, model.vision_encoder.patch_size)
        == (vision_encoder.image_size, vision_encoder.patch_size)
        == (336, 14)
    )
    assert (model.language_model.width, model.language_model.vocab_size) == (
        text_config.hidden_size,
        text_config.vocab_size,
    )
    assert model.choices == {"image_token_id": 32_000, "feature_layers": (-2,), "keep_class_token": False}


# ── LLaVA-NeXT ────────────────────────────────────────────────────────────────────────────────────────────────────────

SIDE = 12
PINPOINTS = [[12, 24], [24, 12], [24, 24], [36, 12], [12, 36]]
SIZES = {
    "wide": (10, 29),
    "tall": (31, 9),
    "square": (17, 17),
    "odd": (13, 22),
    "larger than all": (100, 230),
    "small": (3, 4),
}


def llava_next(language="llama", tied=False):
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**VISION, image_size=SIDE),
        text_config=LANGUAGES[language],
        image_token_index=IMAGE,
        image_grid_pinpoints=PINPOINTS,
        # As the class stands, with the class token kept its tiles would not be square.
        **CHOICES[language] | {"vision_feature_select_strategy": "default"},
        tie_word_embeddings=tied,
    )
    return redraw_weights(LlavaNextForConditionalGeneration(config), buffers=True)


def assert_same_next(published, model, sizes):
    images = [torch.randn(3, *size) for size in sizes]
    features = [model.encode_image(image) for image in images]
    tiles = [len(each.features) for each in features]
    pixels = torch.zeros(len(images), max(tiles), 3, SIDE, SIDE)
    for place in range(len(images)):
        pixels[place, : tiles[place]] = torch.randn(tiles[place], 3, SIDE, SIDE)
        features[place] = model.encode_tiles(pixels[place, : tiles[place]], sizes[place])
    rows = [[5, *[IMAGE] * model.image_tokens(size), 7, 8 + place] for place, size in enumerate(sizes)]
    tokens = torch.tensor([[token for row in rows for token in row]])
    with torch.no_grad():
        expected = published(input_ids=tokens, pixel_values=pixels, image_sizes=torch.tensor(sizes)).logits
        close(model.logits(tokens, features), expected)


@pytest.mark.parametrize("size", SIZES)
def test_llava_next_of_any_size(size, tmp_path):
    published = llava_next()
    published.save_pretrained(tmp_path)
    assert_same_next(published, LlavaNext.from_pretrained(tmp_path), [SIZES[size]])


@pytest.mark.parametrize(
    ("language", "tied"), [("llama", False), ("qwen2", False), ("tied qwen2", True), ("tied qwen2", False)]
)
def test_llava_next_both_ways(language, tied, tmp_path):
    """(That class takes the whole's word for whether the head is tied, whatever the language model's part says.)"""
    published = llava_next(language, tied)
    published.save_pretrained(tmp_path / "theirs")
    model = LlavaNext.from_pretrained(tmp_path / "theirs")
    sizes = [SIZES["wide"], SIZES["square"], SIZES["tall"]]
    assert_same_next(published, model, sizes)
    model.save_pretrained(tmp_path / "ours")
    assert_same_next(back_again(LlavaNextForConditionalGeneration, tmp_path / "ours"), model, sizes)
    assert LlavaNext.from_pretrained(tmp_path / "ours").pinpoints == model.pinpoints
    assert model.language_model.config.tied == tied


@pytest.mark.parametrize("outer", [None, False])
def test_a_llava_next_that_is_tied_in_its_text_config_only(outer, tmp_path):
    """Files of version 4 hold one table for both ends, and the outer setting is left out or false."""
    published = llava_next("tied qwen2", tied=True)
    published.save_pretrained(tmp_path)
    assert not any("lm_head" in name for name in load_file(tmp_path / "model.safetensors"))
    rewrite_config(tmp_path, lambda config: config.pop("tie_word_embeddings"))
    if outer is not None:
        rewrite_config(tmp_path, lambda config: config.update(tie_word_embeddings=outer))
    model = LlavaNext.from_pretrained(tmp_path)
    assert model.language_model.config.tied
    assert_same_next(published, model, [SIZES["wide"]])


@pytest.mark.parametrize("spelled", SPELLINGS, ids=lambda spelled: spelled.__name__)
def test_every_spelling_of_the_names_of_llava_next_is_read(spelled, tmp_path):
    published = llava_next("qwen2")
    published.save_pretrained(tmp_path)
    rename(tmp_path, lambda name: name if spelled is first_files and name == "image_newline" else spelled(name))
    assert_same_next(published, LlavaNext.from_pretrained(tmp_path), [SIZES["odd"]])


# ── What does not fit ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (None, {"model_type": "vipllava"}, "'vipllava'"),
        (None, {"projector_hidden_act": "relu"}, "projector_hidden_act is 'relu'"),
        (None, {"vision_feature_select_strategy": "cls"}, "vision_feature_select_strategy is 'cls'"),
        ("text_config", {"model_type": "mistral"}, "'mistral'"),
        ("vision_config", {"model_type": "siglip_vision_model"}, "'siglip_vision_model'"),
    ],
)
def test_another_model_is_refused(part, change, message, tmp_path):
    llava().save_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: (config if part is None else config[part]).update(change))
    with pytest.raises(CourseError, match=message):
        Llava.from_pretrained(tmp_path)


def test_another_encoder_or_projector_cannot_be_saved_as_a_published_one(tmp_path):
    llava().save_pretrained(tmp_path / "theirs")
    model = Llava.from_pretrained(tmp_path / "theirs")
    plain = VisionTransformer(
        VisionTransformerConfig(image_size=12, patch_size=4, width=20, depth=2, heads=5, mlp_dim=28)
    )
    for vision, projector, message in (
        (plain, model.projector, "has CLIP's vision encoder"),
        (model.vision_encoder, torch.nn.Linear(20, 24), "two-layer MLP"),
    ):
        other = Llava(vision, projector, model.language_model, image_token_id=IMAGE)
        with pytest.raises(CourseError, match=message):
            other.save_pretrained(tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert isinstance(model.projector, Projector)


def test_another_language_model_cannot_be_saved_as_a_published_one(tmp_path):
    """A LLaVA over an OPT, whose weights would be written under a Llama's config."""
    llava().save_pretrained(tmp_path / "theirs")
    model = Llava.from_pretrained(tmp_path / "theirs")
    opt = Decoder(
        DecoderConfig(43, 24, 2, 6, 6, 36, positions="learned", norm="layer", activation="relu", bias=True, tied=True)
    )
    before = {name: tensor.clone() for name, tensor in model.projector.state_dict().items()}
    with pytest.raises(CourseError, match="no published class supports bias True"):
        Llava(model.vision_encoder, model.projector, opt, image_token_id=IMAGE).save_pretrained(tmp_path / "other")
    with pytest.raises(CourseError, match=r"vision_feature_layer is \[9\]"):
        other = Llava(
            model.vision_encoder, model.projector, model.language_model, image_token_id=IMAGE, feature_layers=(9,)
        )
        other.save_pretrained(tmp_path / "other")
    assert not (tmp_path / "other").exists()
    after = model.projector.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_llava_next_with_other_tiles_than_its_encoder_cannot_be_saved(tmp_path):
    llava_next().save_pretrained(tmp_path / "theirs")
    model = LlavaNext.from_pretrained(tmp_path / "theirs")
    model.tile_size = 6
    with pytest.raises(CourseError, match="the tiles have 6 pixels, and the vision encoder's images 12"):
        model.save_pretrained(tmp_path / "other")
    assert not (tmp_path / "other").exists()
