"""Equality with `ChameleonForConditionalGeneration` and `ChameleonVQVAE`, both ways: all weights are redrawn first."""

from dataclasses import fields, replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ChameleonConfig as PublishedConfig
from transformers import ChameleonForConditionalGeneration, ChameleonVQVAE, ChameleonVQVAEConfig

from lessons.lesson_11_chameleon.model import Chameleon, VQEncoder, config_mapping
from lessons.lesson_11_chameleon.model.vocabulary import code_name
from lessons.lesson_11_chameleon.tests.small_models import (
    CODES,
    IMAGE,
    NAMES,
    STYLES,
    TEXT_IDS,
    image,
    published_model,
    published_tokenizer,
    random_images,
    rows,
    small_config,
)
from shared.errors import CourseError
from shared.pretrained import NO_EFFECT
from shared.testing import rewrite_config
from shared.transformer import LinearScaling, Sampling, YarnScaling

LOWEST = torch.finfo(torch.float32).min
CODE_IDS = [token_id for name, token_id in NAMES.items() if name.startswith("IMGIMG")]


def close(actual, expected, tolerance=1e-4):
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=1e-4)


def same_tensors(one, other):
    before, after = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def round_trip(published, folder):
    """Load the published model, write it again, and read that with the published class."""
    published.save_pretrained(folder / "published")
    model = Chameleon.from_pretrained(folder / "published")
    model.save_pretrained(folder / "written")
    again, report = ChameleonForConditionalGeneration.from_pretrained(folder / "written", output_loading_info=True)
    assert not any(report.values()), report
    same_tensors(folder / "published", folder / "written")
    assert Chameleon.from_pretrained(folder / "written").config == model.config
    return model, again.eval()


# ── The image tokenizer ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attn_resolutions": None},
        {"attn_resolutions": [13, 3]},
        {"attn_resolutions": [7]},  # no feature map has this side
        {"attn_type": "none"},
        {"channel_multiplier": [3], "num_res_blocks": 1},
        {"channel_multiplier": [1, 2, 2], "num_res_blocks": 3, "in_channels": 3, "base_channels": 64},
        {"embed_dim": 1, "latent_channels": 3},
    ],
)
@torch.no_grad()
def test_code_for_code(changes, tmp_path):
    published = published_tokenizer(**changes)
    published.save_pretrained(tmp_path / "published")
    model = VQEncoder.from_pretrained(tmp_path / "published")
    model.save_pretrained(tmp_path / "written")
    again, report = ChameleonVQVAE.from_pretrained(tmp_path / "written", output_loading_info=True)
    assert not any(report.values()), report
    same_tensors(tmp_path / "published", tmp_path / "written")
    assert VQEncoder.from_pretrained(tmp_path / "written").config == model.config
    images = random_images(8, channels=model.config.channels)
    codes = model(images)
    assert codes.shape == (8, model.config.image_tokens) and len(codes.unique()) > 2
    for other in (published, again.eval()):
        output = other.encode(images)
        close(model.latents(images), other.quant_conv(output.last_hidden_state))
        assert torch.equal(codes.flatten(), output.image_tokens)


@torch.no_grad()
def test_of_two_equal_vectors_the_first_is_taken(tmp_path):
    published = published_tokenizer()
    published.quantize.embedding.weight[5:] = published.quantize.embedding.weight[4]
    published.save_pretrained(tmp_path)
    model, images = VQEncoder.from_pretrained(tmp_path), random_images(4)
    codes = model(images)
    assert torch.equal(codes.flatten(), published.encode(images).image_tokens)
    assert 4 in codes and codes.max() == 4


# ── The whole model ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("style", STYLES)
@torch.no_grad()
def test_text_and_several_images(style, tied, tmp_path):
    published = published_model(**STYLES[style], tie_word_embeddings=tied)
    model, again = round_trip(published, tmp_path)
    token_ids, images, segments = rows()
    logits, real = model(token_ids, images, segments=segments), segments >= 0
    text = [token_id for token_id in range(53) if token_id not in CODE_IDS]
    assert (logits[..., CODE_IDS] == LOWEST).all()
    for other in (published, again):
        expected = other(input_ids=token_ids, pixel_values=images, attention_mask=real.long()).logits
        assert (expected[..., CODE_IDS] == LOWEST).all()
        close(logits[real][:, text], expected[real][:, text])
    # Codes that are written as token ids are the same prompt.
    filled = model.insert_images(token_ids, images)
    assert torch.equal(filled[token_ids == IMAGE], published.get_image_tokens(images).flatten().long())
    assert torch.equal(model(filled, segments=segments), logits)
    # Without the mask, every logit is the output layer's.
    states = published.model(input_ids=filled, attention_mask=real.long()).last_hidden_state
    close(model(filled, segments=segments, text_only=False)[real], published.lm_head(states)[real])


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_bias": True},
        {"attention_bias": True, "mlp_bias": True, "swin_norm": True},
        {"mlp_bias": True, "num_key_value_heads": 6},
        {"num_key_value_heads": 1, "swin_norm": True},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 70.0}},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 90.0, "factor": 2.0}},
        {
            "rope_parameters": {"rope_type": "yarn", "rope_theta": 90.0, "factor": 4.0},
            "max_position_embeddings": 8,
        },
    ],
)
@torch.no_grad()
def test_other_settings(changes, tmp_path):
    published = published_model(**changes)
    model, again = round_trip(published, tmp_path)
    token_ids, images, segments = rows()
    real = segments >= 0
    logits = model(token_ids, images, segments=segments)[real][:, TEXT_IDS]
    for other in (published, again):
        expected = other(input_ids=token_ids, pixel_values=images, attention_mask=real.long()).logits
        close(logits, expected[real][:, TEXT_IDS])


@pytest.mark.parametrize("style", STYLES)
def test_gradients(style, tmp_path):
    """The loss is the published class's: next-token cross-entropy of text, over the masked logits."""
    published = published_model(**STYLES[style])
    published.save_pretrained(tmp_path)
    model = Chameleon.from_pretrained(tmp_path)
    token_ids, images, _ = rows()
    token_ids, images = token_ids[:1], images[:1]
    labels = torch.where(torch.isin(token_ids, torch.tensor([IMAGE])), -100, token_ids)
    published(input_ids=token_ids, pixel_values=images, labels=labels).loss.backward()
    logits = model(token_ids, images)
    torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:]).backward()
    pairs = [("norm", "norm"), ("layers.0.self_attn.q_proj", "blocks.0.attention.query"), ("embed_tokens", "embedding")]
    for name, own in pairs:
        expected = published.model.get_submodule(name).weight.grad
        close(
            model.language_model.get_submodule(own).weight.grad / expected.abs().max(), expected / expected.abs().max()
        )
    expected = published.model.layers[1].self_attn.k_norm.weight.grad.flatten()
    close(
        model.language_model.blocks[1].attention.key_norm.weight.grad / expected.abs().max(),
        expected / expected.abs().max(),
    )


@pytest.mark.parametrize("style", STYLES)
@torch.no_grad()
def test_text_token_for_token(style, tmp_path):
    published = published_model(**STYLES[style])
    # Large embeddings, so that each token depends on the one before it.
    published.model.embed_tokens.weight.mul_(6)
    published.lm_head.weight.mul_(6)
    published.save_pretrained(tmp_path)
    model = Chameleon.from_pretrained(tmp_path)
    a, b, c, *_ = TEXT_IDS
    texts = [([a, b, *image(), c], 1), ([*image(), b, *image(), a], 2), ([c, b, c], 0)]
    prompts, expected = [], []
    for seed, (text, count) in enumerate(texts):
        token_ids, images = torch.tensor([text]), random_images(count, seed=seed)
        prompts.append(model.insert_images(token_ids, images)[0])
        options = {"do_sample": False, "max_new_tokens": 12, "min_new_tokens": 12, "pad_token_id": 0}
        arguments = {"input_ids": token_ids, "attention_mask": torch.ones_like(token_ids)}
        output = published.generate(**arguments, **({"pixel_values": images} if count else {}), **options)
        expected.append(output[0, len(text) :].tolist())
    assert len({tuple(tokens) for tokens in expected}) == 3 and max(len(set(tokens)) for tokens in expected) > 2
    for use_cache in (True, False):
        sampling = Sampling(max_new_tokens=12)
        answers = model.generate(prompts, sampling, text_only=True, use_cache=use_cache)
        assert [answer.tolist() for answer in answers] == expected
        alone = [model.generate([prompt], sampling, text_only=True, use_cache=use_cache)[0] for prompt in prompts]
        assert [answer.tolist() for answer in alone] == expected


# ── Files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_public_names_are_written(tmp_path):
    published_model(**STYLES["34B"]).save_pretrained(tmp_path / "published")
    Chameleon.from_pretrained(tmp_path / "published").save_pretrained(tmp_path / "written")
    weights = load_file(tmp_path / "written" / "model.safetensors")
    assert {
        "model.layers.1.self_attn.q_norm.bias",
        "model.layers.0.post_attention_layernorm.weight",
        "model.vqmodel.encoder.down.1.block.0.nin_shortcut.weight",
        "model.vqmodel.encoder.down.1.attn.1.proj_out.bias",
        "model.vqmodel.post_quant_conv.weight",
        "model.vqmodel.quantize.embedding.weight",
        "lm_head.weight",
    } < set(weights)
    assert weights["model.layers.1.self_attn.q_norm.bias"].shape == (6, 4)
    assert weights["model.vqmodel.encoder.mid.attn_1.q.weight"].shape == (32, 32, 1, 1)
    # Old files store the rotary frequencies.
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(2)
    save_file(weights, tmp_path / "written" / "model.safetensors")
    Chameleon.from_pretrained(tmp_path / "written")


def test_a_config_that_leaves_every_default_out():
    names = {name: place for place, name in enumerate(["<image>", *map(code_name, range(8192))])}
    config = config_mapping.parse_chameleon_config({"model_type": "chameleon", "vocabulary_map": names}, "a folder")
    published = PublishedConfig(vocabulary_map=names)
    assert config.tokenizer.image_tokens == 1024 and config.vocabulary.image_tokens == 1024
    assert config.language.width == published.hidden_size and config.language.vocab_size == published.vocab_size
    assert config.language.rotary_base == published.rope_parameters["rope_theta"] == 10_000
    assert config.tokenizer.multipliers == tuple(published.vq_config.channel_multiplier)
    assert config.tokenizer.codebook_size == published.vq_config.num_embeddings
    assert not config.design.norms_after and not config.language.tied
    assert config.vocabulary.code_token_ids == tuple(range(1, 8193)) and config.vocabulary.placeholder == 0


def test_the_settings_of_the_original_tokenizer_are_read(tmp_path):
    """Published files also state the settings under their names in the original code, which no class reads."""
    published_model().save_pretrained(tmp_path)
    extra = {"ch": 7, "ch_mult": [9], "n_embed": 3, "double_z": False, "z_channels": 5, "out_channels": 3, "out_ch": 3}
    rewrite_config(tmp_path, lambda config: config["vq_config"].update(extra))
    assert Chameleon.from_pretrained(tmp_path).config.tokenizer.codebook_size == CODES


def test_the_tables_have_a_row_for_every_setting_of_the_published_class():
    own = [*config_mapping.LANGUAGE, *config_mapping.DESIGN, *config_mapping.NAMES]
    names = {row.published for row in own} | set(config_mapping.PARTS)
    assert ({field.name for field in fields(PublishedConfig)} - NO_EFFECT) | {"head_dim"} == names
    vq = {row.published for row in config_mapping.VQ}
    assert {field.name for field in fields(ChameleonVQVAEConfig)} - NO_EFFECT == vq


def without(name):
    return {other: token_id for other, token_id in NAMES.items() if other != name}


REFUSED = [
    ({"hidden_act": "gelu"}, "hidden_act is 'gelu', supported is only 'silu'"),
    ({"num_key_value_heads": None}, "num_key_value_heads is null, expected a whole number"),
    ({"num_key_value_heads": 4}, r"6 query heads \(num_attention_heads\), which share 4 key heads"),
    ({"num_attention_heads": 5}, "hidden_size 24 is divided among 5 query heads"),
    ({"num_attention_heads": 8, "num_key_value_heads": 2}, "expected an even dimension per head"),
    ({"head_dim": 8}, "head_dim is 8, supported is only 4"),
    ({"swin_norm": "yes"}, "swin_norm is 'yes', expected true or false"),
    ({"vocab_size": 40}, "the token id .*; expected 0 to 39"),
    ({"rope_parameters": {"rope_type": "longrope"}}, "'longrope'; supported are"),
    ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ({"vocabulary_map": None}, "vocabulary_map is null, expected the token id of every token"),
    ({"vocabulary_map": {"<image>": -1}}, "vocabulary_map is .*, expected a whole number of at least 0"),
    ({"vocabulary_map": without(code_name(7))}, "23 names of image tokens .* the codebook has 24 vectors"),
    ({"vocabulary_map": NAMES | {code_name(24): 0}}, "25 names of image tokens"),
    ({"vocabulary_map": NAMES | {"IMGIMGAFZ": 0}}, r"25 names of image tokens \(24 codes"),
    ({"vocabulary_map": NAMES | {"IMGIMG5Z": 0}}, "image token 'IMGIMG5Z' names no code; .* as in IMGIMGDAFZ"),
    ({"vocabulary_map": NAMES | {code_name(7): NAMES[code_name(8)]}}, "of an image token to two names"),
    ({"vocabulary_map": NAMES | {"<eoss>": TEXT_IDS[0]}}, "of an image token to two names"),
    ({"vq_config": {"num_embeddings": 25}}, "24 names of image tokens .* the codebook has 25 vectors"),
    ({"vq_config": {"double_latent": True}}, "double_latent is True, supported is only False"),
    ({"vq_config": {"base_channels": 48}}, "channels that do not divide into 32 groups"),
    ({"vq_config": {"channel_multiplier": []}}, "expected at least one multiplier"),
    ({"vq_config": {"channel_multiplier": 2}}, "channel_multiplier is 2, expected a list of whole numbers"),
    ({"vq_config": {"channel_multiplier": [1, 0]}}, "expected a whole number of at least 1"),
    ({"vq_config": {"resolution": 3}}, "an image of 3 × 3 pixels cannot be halved 2 times"),
    ({"vq_config": {"attn_type": None}}, "attn_type is null, expected a string"),
    ({"vq_config": {"attn_resolutions": "8"}}, "attn_resolutions is '8', expected a list of whole numbers"),
    ({"vq_config": {"model_type": "emu3_vqgan"}}, "'emu3_vqgan'; expected chameleon_vqgan"),
]


@pytest.mark.parametrize(
    ("change", "message"), REFUSED, ids=[f"{n} {next(iter(c))}" for n, (c, _) in enumerate(REFUSED)]
)
def test_unsupported_settings_are_refused_by_name(change, message, refused_config):
    config = refused_config | {
        name: refused_config[name] | value if name == "vq_config" else value for name, value in change.items()
    }
    with pytest.raises(CourseError, match=message):
        config_mapping.parse_chameleon_config(config, "a folder")


@pytest.fixture(scope="module")
def refused_config():
    """The settings of a published model that is read."""
    config = published_model().config.to_dict()
    config_mapping.parse_chameleon_config(config, "a folder")
    return config


CHANGES = [
    {"language": {"tied": True, "head_dim": 4, "norm_eps": 0.25}},
    {"language": {"rotary_base": 70.0, "rotary_scaling": LinearScaling(2.0)}},
    {"language": {"rotary_scaling": YarnScaling(2.0, 6, 5.0, 2.0), "max_positions": 12}},
    {"design": {"norms_after": True, "attention_bias": True}},
    {"design": {"mlp_bias": True}},
    {"tokenizer": {"attention": False, "attention_sizes": (4, 2)}},
    {"tokenizer": {"multipliers": (2, 1), "blocks": 3, "image_size": 9, "channels": 4}},
    {"tokenizer": {"latent_channels": 9, "code_dim": 3, "width": 64}},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_what_is_written_is_read(changes):
    config = small_config()
    parts = {part: replace(getattr(config, part), **change) for part, change in changes.items()}
    config = replace(config, **parts)
    read = config_mapping.parse_chameleon_config(config_mapping.write_chameleon_config(config), "a folder")
    assert read == replace(config, language=replace(config.language, head_dim=4))


def test_dropout_is_no_published_setting():
    config = small_config(dropout=0.1)
    read = config_mapping.parse_chameleon_config(config_mapping.write_chameleon_config(config), "a folder")
    assert read.design == replace(config.design, dropout=0.0)


def test_what_no_published_class_has_is_not_written():
    config = small_config()
    wide = replace(config, language=replace(config.language, head_dim=8))
    with pytest.raises(CourseError, match="no published class supports head_dim 8"):
        config_mapping.write_chameleon_config(wide)


def test_other_models_are_refused(tmp_path):
    published_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(CourseError, match="holds a model of type 'chameleon_vqgan'; expected chameleon"):
        Chameleon.from_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: config.update(num_embeddings=CODES + 1))
    with pytest.raises(CourseError, match=r"mis-shaped: quantize.embedding.weight is \[24, 6\], expected \[25, 6\]"):
        VQEncoder.from_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: config.update(model_type="emu3_vqgan"))
    with pytest.raises(CourseError, match="'emu3_vqgan'; expected chameleon_vqgan"):
        VQEncoder.from_pretrained(tmp_path)


def test_a_model_without_qk_norm_is_not_written(tmp_path):
    published_model().save_pretrained(tmp_path)
    config = Chameleon.from_pretrained(tmp_path).config
    with pytest.raises(CourseError, match="every published Chameleon has QK-norm"):
        Chameleon(replace(config, design=replace(config.design, qk_norm=False))).save_pretrained(tmp_path)
