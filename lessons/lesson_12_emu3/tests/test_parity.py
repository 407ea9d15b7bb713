"""Equality with `Emu3ForConditionalGeneration` and `Emu3VQVAE`, both ways: weights and buffers are redrawn first."""

from dataclasses import fields, replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Emu3Config as PublishedConfig
from transformers import Emu3ForConditionalGeneration, Emu3TextConfig, Emu3VQVAE, Emu3VQVAEConfig

from lessons.lesson_12_emu3.model import Emu3, FrameGrid, VisionSampling, VisionTokenizer, config_mapping
from lessons.lesson_12_emu3.model.vocabulary import code_name, vision_names
from lessons.lesson_12_emu3.tests.small_models import (
    CODES,
    NAMES,
    TEXT_IDS,
    published_model,
    published_tokenizer,
    random_images,
    random_videos,
    small_config,
)
from shared.errors import CourseError
from shared.pretrained import NO_EFFECT
from shared.testing import rewrite_config
from shared.transformer import LinearScaling, Sampling, YarnScaling

IMAGE, START, TOKENS, LINE_END, FRAME_END, END, BOS, EOS = (NAMES[name] for name in vision_names(0))


def close(actual, expected, tolerance=1e-4):
    """Compare on the scale of the expected values: at random weights, activations reach several tens."""
    scale = expected.abs().max()
    assert scale > 1e-2
    torch.testing.assert_close(actual / scale, expected / scale, atol=tolerance, rtol=1e-4)


def same_tensors(one, other):
    before, after = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


# ── The vision tokenizer ──────────────────────────────────────────────────────────────────────────────────────────────


def tokenizer_round_trip(published, folder):
    published.save_pretrained(folder / "published")
    model = VisionTokenizer.from_pretrained(folder / "published")
    model.save_pretrained(folder / "written")
    again, report = Emu3VQVAE.from_pretrained(folder / "written", output_loading_info=True)
    assert not any(report.values()), report
    same_tensors(folder / "published", folder / "written")
    assert VisionTokenizer.from_pretrained(folder / "written").config == model.config
    return model, again.eval()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temporal_downsample_factor": 4, "num_res_blocks": 2},
        {"temporal_downsample_factor": 1, "attn_resolutions": [7]},  # there is no such resolution
        {"channel_multiplier": [2, 1, 2], "hidden_size": 64, "attn_resolutions": [0, 2]},
        {"channel_multiplier": [1], "hidden_size": 32, "attn_resolutions": [], "num_attention_heads": 1},
        {"embed_dim": 1, "latent_channels": 1, "in_channels": 3, "out_channels": 2},
    ],
    ids=str,
)
@torch.no_grad()
def test_code_for_code(changes, tmp_path):
    published = published_tokenizer(**changes)
    model, again = tokenizer_round_trip(published, tmp_path)
    factor, channels, side = (getattr(model.config, name) for name in ("temporal_factor", "channels", "spatial_factor"))
    videos, images = random_videos(2, 3 * factor, 12, 8, channels), random_images(5, 12, 8, channels)
    codes, grids = model.encode_videos(videos), torch.stack(model.encode_images(images))
    assert codes.shape == (2, 3, 12 // side, 8 // side) and len(codes.unique()) > 1
    sizes = torch.tensor([[12, 8]] * 5)
    # Of a video, the published class crops frames and rows instead of rows and columns.
    beyond = torch.full((2, 2), 1000)
    for other in (published, again):
        output = other.encode(videos, beyond)
        latents = other.quant_conv(output.last_hidden_state.transpose(1, 2))
        close(model.latents(videos), latents)
        assert torch.equal(codes, torch.stack(output.image_tokens))
        assert torch.equal(grids, torch.stack(other.encode(images, sizes).image_tokens))
        # Codes that both could have, not only the few that these weights are nearest to.
        random_codes = torch.randint(model.config.codebook_size, (2, 3, 4, 3))
        close(model.decode_videos(random_codes), other.decode(random_codes))
        close(model.decode_images(random_codes[:, 1]), other.decode(random_codes[:, 1]))


@torch.no_grad()
def test_padded_images_of_different_sizes(tmp_path):
    published = published_tokenizer()
    model, _ = tokenizer_round_trip(published, tmp_path)
    images, sizes = random_images(3, 9, 12), torch.tensor([[9, 12], [4, 12], [7, 5]])
    for row, (height, width) in enumerate(sizes.tolist()):
        images[row, :, height:], images[row, :, :, width:] = 0, 0
    grids, expected = model.encode_images(images, sizes), published.encode(images, sizes).image_tokens
    assert [tuple(grid.shape) for grid in grids] == [(4, 6), (2, 6), (3, 2)]
    assert all(torch.equal(grid, other) for grid, other in zip(grids, expected, strict=True))


@torch.no_grad()
def test_an_image_is_a_video_of_equal_frames(tmp_path):
    model, _ = tokenizer_round_trip(published_tokenizer(temporal_downsample_factor=4), tmp_path)
    images = random_images(2)
    videos = images[:, None].repeat(1, 4, 1, 1, 1)
    assert torch.equal(torch.stack(model.encode_images(images)), model.encode_videos(videos)[:, 0])
    codes = model.encode_videos(videos)
    close(model.decode_images(codes[:, 0]), model.decode_videos(codes)[:, 0])
    close(model(videos).videos, model.decode_videos(codes))


# ── The whole model ───────────────────────────────────────────────────────────────────────────────────────────────────


def round_trip(published, folder):
    """Load the published model, write it again, and read that with the published class."""
    published.save_pretrained(folder / "published")
    model = Emu3.from_pretrained(folder / "published")
    model.save_pretrained(folder / "written")
    again, report = Emu3ForConditionalGeneration.from_pretrained(folder / "written", output_loading_info=True)
    assert not any(report.values()), report
    same_tensors(folder / "published", folder / "written")
    assert Emu3.from_pretrained(folder / "written").config == model.config
    return model, again.eval()


def image(rows, columns):
    return [START, TEXT_IDS[0], TEXT_IDS[1], TOKENS, *[IMAGE] * (rows * (columns + 1)), FRAME_END, END]


def prompts():
    """Three rows of unequal length, with one, two and no images of different sizes; padded at the end."""
    a, b, c, *_ = TEXT_IDS
    texts = [[BOS, a, *image(3, 5), c], [*image(2, 3), a, *image(1, 2), b, c], [c, b, a, a]]
    longest = max(map(len, texts))
    token_ids = torch.tensor([text + [a] * (longest - len(text)) for text in texts])
    segments = torch.tensor([[0] * len(text) + [-1] * (longest - len(text)) for text in texts])
    return token_ids, random_images(3), torch.tensor([[6, 10], [4, 6], [2, 4]]), segments


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tied": True},
        {"attention_bias": True, "num_key_value_heads": 1},
        {"mlp_bias": True, "attention_bias": True, "num_key_value_heads": 6, "tied": True},
        {"head_dim": 6},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 90.0, "factor": 2.0}},
    ],
    ids=str,
)
@torch.no_grad()
def test_text_and_several_images(changes, tmp_path):
    published = published_model(**changes)
    model, again = round_trip(published, tmp_path)
    token_ids, images, sizes, segments = prompts()
    logits, real = model(token_ids, images, sizes, segments=segments), segments >= 0
    for other in (published, again):
        arguments = {"pixel_values": images, "image_sizes": sizes, "attention_mask": real.long()}
        close(logits[real], other(input_ids=token_ids, **arguments).logits[real])
    # Codes that are written as token ids are the same prompt.
    filled = model.insert_images(token_ids, images, sizes)
    assert torch.equal(filled[token_ids == IMAGE], published.model.get_image_tokens(images, sizes).long())
    assert torch.equal(model(filled, segments=segments), logits)
    assert (filled == LINE_END).sum() == 3 + 2 + 1


def test_gradients(tmp_path):
    published = published_model(attention_bias=True)
    published.save_pretrained(tmp_path)
    model = Emu3.from_pretrained(tmp_path)
    token_ids, images, sizes, _ = prompts()
    filled = model.insert_images(token_ids, images, sizes)[:1]
    published(input_ids=filled, labels=filled).loss.backward()
    torch.nn.functional.cross_entropy(model(filled)[0, :-1], filled[0, 1:]).backward()
    pairs = [("norm", "norm"), ("layers.0.self_attn.q_proj", "blocks.0.attention.query"), ("embed_tokens", "embedding")]
    for name, own in pairs:
        expected = published.model.text_model.get_submodule(name).weight.grad.clone()
        if name == "embed_tokens":
            # The published class does not train the padding token.
            assert not expected[1].any()
            model.language_model.embedding.weight.grad[1] = 0
        close(model.language_model.get_submodule(own).weight.grad, expected)


@torch.no_grad()
def test_text_token_for_token(tmp_path):
    published = published_model()
    # Large embeddings, so that each token depends on the one before it.
    published.model.text_model.embed_tokens.weight.mul_(6)
    published.lm_head.weight.mul_(6)
    published.save_pretrained(tmp_path)
    model = Emu3.from_pretrained(tmp_path)
    a, b, c, *_ = TEXT_IDS
    texts, rows, expected = [([a, *image(3, 5), c], 1), ([c, b, c], 0), ([*image(3, 5), *image(3, 5)], 2)], [], []
    for text, count in texts:
        token_ids, images = torch.tensor([text]), random_images(max(count, 1))[:count]
        arguments = {"input_ids": token_ids, "attention_mask": torch.ones_like(token_ids)}
        if count:
            arguments |= {"pixel_values": images, "image_sizes": torch.tensor([[6, 10]] * count)}
        rows.append(model.insert_images(token_ids, images)[0] if count else token_ids[0])
        options = {"do_sample": False, "max_new_tokens": 12, "min_new_tokens": 12, "pad_token_id": 1}
        expected.append(published.generate(**arguments, **options, eos_token_id=None)[0, len(text) :].tolist())
    assert len({tuple(row) for row in expected}) == 3 and max(len(set(row)) for row in expected) > 2
    assert [row.tolist() for row in model.generate(rows, Sampling(max_new_tokens=12))] == expected


def allowed_by_place(rows, columns):
    """Return the tokens that the published example of generation allows, given a row of tokens."""
    codes = [NAMES[code_name(code)] for code in range(CODES)]

    def allowed(batch, row):
        place = len(row) - row.tolist().index(TOKENS)
        if place % (columns + 1) == 0 and place <= rows * (columns + 1):
            return [LINE_END]
        after = place - rows * (columns + 1)
        return codes if after <= 0 else [[FRAME_END, END, EOS][after - 1]]

    return allowed


@pytest.mark.parametrize("guidance", [1.0, 3.0, 0.5])
@torch.no_grad()
def test_guided_images_token_for_token(guidance, tmp_path):
    published = published_model()
    published.model.text_model.embed_tokens.weight.mul_(6)
    published.save_pretrained(tmp_path)
    model = Emu3.from_pretrained(tmp_path)
    a, b, c, d, *_ = TEXT_IDS
    size = [START, a, b, TOKENS]
    rows, none = [[BOS, a, c, d, d, *size], [BOS, b, b, *size], [BOS, d, *size]], [BOS, *size]
    grid = FrameGrid(3, 4)
    expected = [
        published.generate(
            input_ids=torch.tensor([row]),
            attention_mask=torch.ones(1, len(row), dtype=torch.long),
            do_sample=False,
            max_new_tokens=grid.tokens,
            eos_token_id=None,
            guidance_scale=guidance,
            negative_prompt_ids=torch.tensor([none]),
            prefix_allowed_tokens_fn=allowed_by_place(3, 4),
        )[0, len(row) :].tolist()
        for row in rows
    ]
    assert len({tuple(row) for row in expected}) == 3
    prompts = [torch.tensor(row) for row in rows]
    sampling = VisionSampling(guidance, temperature=0.0)
    together = model.generate_frames(prompts, [torch.tensor(none)] * 3, grid, sampling)
    assert together.tolist() == expected
    alone = [model.generate_frames([prompt], [torch.tensor(none)], grid, sampling)[0] for prompt in prompts]
    assert torch.equal(torch.stack(alone), together)
    pixels = published.decode_image_tokens(image_tokens=together, height=3, width=4)
    close(model.decode_frames(together, grid)[:, 0], pixels)


# ── Files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tied", [False, True])
@torch.no_grad()
def test_both_spellings_of_the_weights_are_read(tied, tmp_path):
    published = published_model(tied=tied)
    published.save_pretrained(tmp_path / "published")
    weights = load_file(tmp_path / "published" / "model.safetensors")
    names = {"text_model.model.layers.1.self_attn.q_proj.weight", "vqmodel.quantize.embedding.weight"}
    assert names <= set(weights) and ("text_model.lm_head.weight" in weights) == (not tied)
    model = Emu3.from_pretrained(tmp_path / "published")
    in_memory = {name: tensor.contiguous().clone() for name, tensor in published.state_dict().items()}
    in_memory["model.text_model.rotary_emb.inv_freq"] = torch.zeros(2)
    save_file(in_memory, tmp_path / "published" / "model.safetensors")
    again = Emu3.from_pretrained(tmp_path / "published")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), again.buffers(), strict=True))


def test_a_config_that_leaves_every_default_out():
    names = {name: place for place, name in enumerate(vision_names(32_768))}
    config = config_mapping.parse_emu3_config({"model_type": "emu3", "vocabulary_map": names}, "a folder")
    published = PublishedConfig(vocabulary_map=names)
    text, tokenizer = published.text_config, published.vq_config
    language, vision = config.language, config.tokenizer
    assert (language.vocab_size, language.width, language.mlp_dim) == (184_622, 4096, 14_336)
    assert (language.depth, language.heads, language.kv_heads, language.width_per_head) == (32, 32, 8, 128)
    assert (language.max_positions, language.norm_eps) == (text.max_position_embeddings, text.rms_norm_eps)
    assert language.rotary_base == text.rope_parameters["rope_theta"] == 1e6
    assert not (language.tied or config.attention_bias or config.mlp_bias or config.dropout)
    assert (vision.codebook_size, vision.code_dim, vision.latent_channels) == (tokenizer.codebook_size, 4, 4)
    assert (vision.attention_width, vision.spatial_factor, vision.temporal_factor) == (1024, 8, 4)
    assert vision.multipliers == tuple(tokenizer.channel_multiplier)
    assert vision.attention_levels == tuple(tokenizer.attn_resolutions)


def test_the_settings_of_version_4_are_read():
    config = config_mapping.write_emu3_config(small_config())
    text = config["text_config"] | {"rope_theta": 70.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    read = config_mapping.parse_emu3_config(config | {"text_config": text}, "a folder")
    assert read.language.rotary_base == 70 and read.language.rotary_scaling == LinearScaling(2.0)


def test_the_tables_have_a_row_for_every_setting_of_the_published_classes():
    def names(published):
        return {field.name for field in fields(published)} - NO_EFFECT

    own = {row.published for row in (*config_mapping.LANGUAGE, *config_mapping.BIASES)}
    assert names(Emu3TextConfig) | {"head_dim", "attention_bias", "mlp_bias"} == own
    assert names(Emu3VQVAEConfig) == {row.published for row in config_mapping.TOKENIZER}
    assert names(PublishedConfig) == {row.published for row in config_mapping.MODEL} | set(config_mapping.PARTS)


def without(name):
    return {other: token_id for other, token_id in NAMES.items() if other != name}


REFUSED = [
    ({"text_config": {"hidden_act": "gelu"}}, "hidden_act is 'gelu', supported is only 'silu'"),
    ({"text_config": {"num_key_value_heads": None}}, "num_key_value_heads is null, expected a whole number"),
    ({"text_config": {"num_key_value_heads": 4}}, r"6 query heads .*, which share 4 key heads"),
    ({"text_config": {"num_attention_heads": 5, "num_key_value_heads": 5}}, "hidden_size 24 is divided among 5"),
    ({"text_config": {"head_dim": 5}}, "of head_dim 5, .* expected an even dimension per head"),
    ({"text_config": {"attention_bias": "yes"}}, "attention_bias is 'yes', expected true or false"),
    ({"text_config": {"vocab_size": 40}}, "the token id .*; expected 0 to 39"),
    ({"text_config": {"model_type": "llama"}}, "'llama'; expected emu3_text_model"),
    ({"text_config": {"rope_parameters": {"rope_type": "longrope"}}}, "'longrope'; supported are"),
    ({"text_config": {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}}, "partial_rotary"),
    ({"text_config": {"quantization_config": {"bits": 4}}}, "quantization_config"),
    ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ({"text_config": 3}, "text_config is 3"),
    ({"vocabulary_map": None}, "vocabulary_map is null, expected the token id of every token"),
    ({"vocabulary_map": {"<image>": -1}}, "vocabulary_map is .*, expected a whole number of at least 0"),
    ({"vocabulary_map": without(code_name(7))}, "20 names of visual tokens .* the codebook has 21 vectors"),
    ({"vocabulary_map": NAMES | {code_name(CODES): 0}}, "22 names of visual tokens"),
    ({"vocabulary_map": NAMES | {"<|visual token 7|>": 0}}, "'<|visual token 7|>' names no code"),
    ({"vocabulary_map": NAMES | {code_name(7): NAMES[code_name(8)]}}, "of an image's token to two names"),
    ({"vocabulary_map": without("<|extra_200|>")}, r"no <\|extra_200\|>, which ends each row"),
    ({"vq_config": {"codebook_size": 22}}, "21 names of visual tokens .* the codebook has 22 vectors"),
    ({"vq_config": {"double_latent": True}}, "double_latent is True, supported is only False"),
    ({"vq_config": {"hidden_size": 32}}, "hidden_size is 32 .* attention acts on 64 channels"),
    ({"vq_config": {"base_channels": 48, "hidden_size": 96}}, "channels that do not divide into 32 groups"),
    ({"vq_config": {"channel_multiplier": []}}, "expected at least one multiplier"),
    ({"vq_config": {"channel_multiplier": 2}}, "channel_multiplier is 2, expected a list of whole numbers"),
    ({"vq_config": {"attn_resolutions": None}}, "attn_resolutions is null, expected a list of whole numbers"),
    ({"vq_config": {"attn_resolutions": [0]}}, "all attention has the channels of the last resolution"),
    ({"vq_config": {"latent_channels": 6}}, r"latent_channels is 6 and code_dim \(embed_dim\) is 5"),
    ({"vq_config": {"temporal_downsample_factor": 3}}, "is 3; expected a power of 2"),
    ({"vq_config": {"num_attention_heads": 3}}, "64 channels do not divide into 3 heads"),
    ({"vq_config": {"model_type": "chameleon_vqgan"}}, "'chameleon_vqgan'; expected emu3_vqgan"),
]


@pytest.fixture(scope="module")
def refused_config():
    """The settings of a published model that is read."""
    config = published_model().config.to_dict()
    config_mapping.parse_emu3_config(config, "a folder")
    return config


@pytest.mark.parametrize(
    ("change", "message"), REFUSED, ids=[f"{n} {next(iter(c))}" for n, (c, _) in enumerate(REFUSED)]
)
def test_unsupported_settings_are_refused_by_name(change, message, refused_config):
    def merged(name, value):
        return refused_config[name] | value if name.endswith("_config") and isinstance(value, dict) else value

    parts = {name: merged(name, value) if name in refused_config else value for name, value in change.items()}
    with pytest.raises(CourseError, match=message):
        config_mapping.parse_emu3_config(refused_config | parts, "a folder")


CHANGES = [
    {"language": {"tied": True, "head_dim": 8, "norm_eps": 0.25}},
    {"language": {"rotary_base": 70.0, "rotary_scaling": LinearScaling(2.0)}},
    {"language": {"rotary_scaling": YarnScaling(2.0, 6, 5.0, 2.0), "max_positions": 12}},
    {"tokenizer": {"temporal_factor": 8, "attention_levels": (1, 0), "attention_heads": 4}},
    {"tokenizer": {"multipliers": (2, 1, 3), "blocks": 3, "channels": 4, "out_channels": 1}},
    {"tokenizer": {"code_dim": 9, "latent_channels": 9, "width": 64}},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_what_is_written_is_read(changes):
    config = small_config(attention_bias=True)
    parts = {part: replace(getattr(config, part), **change) for part, change in changes.items()}
    config = replace(config, **parts)
    read = config_mapping.parse_emu3_config(config_mapping.write_emu3_config(config), "a folder")
    head_dim = config.language.width_per_head
    assert read == replace(config, language=replace(config.language, head_dim=head_dim))


def test_dropout_is_no_published_setting(tmp_path):
    Emu3(small_config(dropout=0.1)).save_pretrained(tmp_path)
    assert Emu3.from_pretrained(tmp_path).config.dropout == 0
    model = Emu3.from_pretrained(tmp_path, dropout=0.2)
    assert model.config.dropout == 0.2 and model.language_model.blocks[0].attention_dropout == 0.2


def test_other_models_are_refused(tmp_path):
    published_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(CourseError, match="holds a model of type 'emu3_vqgan'; expected emu3"):
        Emu3.from_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: config.update(codebook_size=CODES + 1))
    with pytest.raises(CourseError, match=r"mis-shaped: quantize.embedding.weight is \[21, 5\], expected \[22, 5\]"):
        VisionTokenizer.from_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: config.update(model_type="chameleon_vqgan"))
    with pytest.raises(CourseError, match="'chameleon_vqgan'; expected emu3_vqgan"):
        VisionTokenizer.from_pretrained(tmp_path)
