"""Equality with the published classes, both ways: images and videos together, odd shapes, random weights.

Every parameter is redrawn at random first: at their initial values many of them have no effect.
"""

import json
from dataclasses import fields

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from lessons.lesson_09_qwen_vl.model import QwenVL, VisualInput, config_mapping
from shared.errors import CourseError
from shared.pretrained import NO_EFFECT
from shared.testing import redraw_weights, rewrite_config
from shared.transformer import Sampling

IMAGE, VIDEO, START, END = 30, 31, 32, 33
TEXT = {
    "vocab_size": 37,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-3,
    "rope_parameters": {"rope_type": "default", "rope_theta": 50.0, "mrope_section": [1, 3, 2]},
}
TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
}
VISION = {"depth": 3, "num_heads": 2, "in_channels": 2, "patch_size": 3, "spatial_merge_size": 2}
WIDE = {**VISION, "hidden_size": 16, "intermediate_size": 20, "out_hidden_size": 24}
CASES = {
    "2": (
        Qwen2VLForConditionalGeneration,
        Qwen2VLConfig,
        {**VISION, "embed_dim": 16, "hidden_size": 24, "mlp_ratio": 2, "temporal_patch_size": 2},
        {},
    ),
    "2.5": (
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLConfig,
        {**WIDE, "window_size": 13, "fullatt_block_indexes": [1], "tokens_per_second": 3},
        {},
    ),
    "3": (
        Qwen3VLForConditionalGeneration,
        Qwen3VLConfig,
        {**WIDE, "num_position_embeddings": 25, "deepstack_visual_indexes": [0, 2]},
        {"head_dim": 12},
    ),
}


def published(generation, *, tied=False, text=None, vision=None):
    build, config, vision_settings, text_settings = CASES[generation]
    text_settings = {**TEXT, **text_settings, **(text or {})}
    settings = config(
        text_config=json.loads(json.dumps(text_settings)),
        vision_config={**vision_settings, **(vision or {})},
        tie_word_embeddings=tied,
        **TOKENS,
    )
    return redraw_weights(build(settings))


IMAGE_GRIDS, VIDEO_GRIDS = [[1, 4, 6], [1, 2, 2], [1, 8, 6]], [[2, 6, 4], [3, 2, 8]]
SECONDS = [0.7, 0.34]


def visual(grids, seed, seconds=None):
    grids = torch.tensor(grids)
    patches = torch.randn(int(grids.prod(dim=1).sum()), 2 * 2 * 9, generator=torch.Generator().manual_seed(seed))
    return VisualInput(patches, grids, seconds)


def block(grid, token):
    return [START] + [token] * (grid[0] * grid[1] * grid[2] // 4) + [END]


def video_block(grid, generation):
    if generation != "3":
        return block(grid, VIDEO)
    return [token for frame in range(grid[0]) for token in (frame, *block([1, *grid[1:]], VIDEO))]


def inputs(generation):
    """Two rows of unequal length: text, images and videos; the second row is padded at its end."""
    rows = [
        [1, 2, *block(IMAGE_GRIDS[0], IMAGE), 3, *video_block(VIDEO_GRIDS[0], generation), 4, 5, 6],
        [
            *video_block(VIDEO_GRIDS[1], generation),
            *block(IMAGE_GRIDS[1], IMAGE),
            7,
            *block(IMAGE_GRIDS[2], IMAGE),
            8,
        ],
    ]
    longest = max(map(len, rows))
    token_ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    segments = torch.tensor([[0] * len(row) + [-1] * (longest - len(row)) for row in rows])
    seconds = torch.tensor(SECONDS) if generation == "2.5" else None
    return token_ids, visual(IMAGE_GRIDS, 0), visual(VIDEO_GRIDS, 1, seconds), segments


def published_inputs(token_ids, images, videos, segments):
    kinds = torch.where(token_ids == IMAGE, 1, torch.where(token_ids == VIDEO, 2, 0))
    arguments = {"input_ids": token_ids, "attention_mask": (segments >= 0).long(), "mm_token_type_ids": kinds}
    if images is not None:
        arguments |= {"pixel_values": images.patches, "image_grid_thw": images.grids}
    if videos is not None:
        arguments |= {"pixel_values_videos": videos.patches, "video_grid_thw": videos.grids}
        if videos.seconds_per_frame is not None:
            arguments["second_per_grid_ts"] = videos.seconds_per_frame
    return arguments


def close(actual, expected, tolerance=1e-4):
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


def round_trip(model, folder):
    """Load a published model, save it, and load it in `transformers`; return our model and the reloaded one."""
    model.save_pretrained(folder / "published")
    loaded = QwenVL.from_pretrained(folder / "published")
    loaded.save_pretrained(folder / "written")
    again, report = type(model).from_pretrained(folder / "written", output_loading_info=True)
    assert not any(report.values()), report
    before, after = (load_file(folder / side / "model.safetensors") for side in ("published", "written"))
    assert len(before) == len(after)
    assert all(any(torch.equal(tensor, other) for other in after.values()) for tensor in before.values())
    assert QwenVL.from_pretrained(folder / "written").config == loaded.config
    return loaded, again.eval()


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("generation", CASES)
@torch.no_grad()
def test_images_and_videos_together(generation, tied, tmp_path):
    reference = published(generation, tied=tied)
    model, again = round_trip(reference, tmp_path)
    token_ids, images, videos, segments = inputs(generation)
    prompt = model.prompt(token_ids, images, videos, segments)
    logits, real = model(token_ids, images, videos, segments), segments >= 0
    for other in (reference, again):
        # Explicit ids: this version of the published class restarts text at a wrong id after a video.
        arguments = published_inputs(token_ids, images, videos, segments)
        expected = other(**arguments, position_ids=prompt.ids.permute(2, 0, 1)).logits
        close(logits[real], expected[real])


@pytest.mark.parametrize("generation", CASES)
@torch.no_grad()
def test_ids_equal_the_published_ones(generation, tmp_path):
    """Where no video lasts longer than its sides, the published class restarts text at the same id."""
    reference = published(generation)
    reference.save_pretrained(tmp_path)
    model = QwenVL.from_pretrained(tmp_path)
    token_ids, images, videos, segments = inputs(generation)
    if generation == "2.5":
        videos = VisualInput(videos.patches, videos.grids, torch.tensor([0.4, 0.34]))
    arguments = published_inputs(token_ids, images, videos, segments)
    ids, _ = reference.model.get_rope_index(
        **{name: value for name, value in arguments.items() if not name.startswith("pixel")}
    )
    assert torch.equal(model.prompt(token_ids, images, videos, segments).ids, ids.permute(1, 2, 0))
    close(model(token_ids, images, videos, segments)[segments >= 0], reference(**arguments).logits[segments >= 0])


def test_seconds_of_a_video_decide_on_its_time_ids(tmp_path):
    published("2.5").save_pretrained(tmp_path)
    model = QwenVL.from_pretrained(tmp_path)
    grid = [3, 2, 2]
    for seconds, expected in ((None, [0, 3, 6]), (torch.tensor([0.5]), [0, 1, 3]), (torch.tensor([2.0]), [0, 6, 12])):
        prompt = model.prompt(torch.tensor([[1, *block(grid, VIDEO)]]), videos=visual([grid], 0, seconds))
        assert (prompt.ids[0, 2:5, 0] - 2).tolist() == expected
        # Text goes on after the largest id, which is the published paper's rule.
        assert prompt.ids[0, 5].tolist() == [3 + expected[-1]] * 3


@pytest.mark.parametrize(
    ("generation", "text", "vision"),
    [
        ("2", {"num_key_value_heads": None}, {"hidden_act": "gelu", "temporal_patch_size": 1}),
        ("2", {"rope_parameters": {**TEXT["rope_parameters"], "rope_type": "yarn", "factor": 3.0}}, {}),
        ("2", {"rope_parameters": {**TEXT["rope_parameters"], "rope_type": "linear", "factor": 3.0}}, {}),
        ("2", {}, {"rope_parameters": {"rope_type": "axial", "rope_theta": 20.0}, "spatial_merge_size": 1}),
        ("2.5", {}, {"window_size": 6, "fullatt_block_indexes": [0, 2, 9]}),
        ("2.5", {}, {"window_size": 40, "hidden_act": "gelu_pytorch_tanh"}),
        ("3", {"head_dim": 12, "hidden_size": 20}, {"out_hidden_size": 20, "deepstack_visual_indexes": []}),
        ("3", {"rope_parameters": {**TEXT["rope_parameters"], "mrope_section": [3, 1, 2]}}, {"hidden_act": "silu"}),
        ("3", {"rope_parameters": {**TEXT["rope_parameters"], "rope_type": "yarn", "factor": 2.5}}, {}),
    ],
)
@torch.no_grad()
def test_other_settings(generation, text, vision, tmp_path):
    reference = published(generation, text=text, vision=vision)
    model, again = round_trip(reference, tmp_path)
    frames = vision.get("temporal_patch_size", 2)
    token_ids, images, videos, _ = inputs(generation)
    token_ids, videos = token_ids[:1, : 4 + 6], None
    if vision.get("spatial_merge_size") == 1:
        token_ids = torch.tensor([[1, *[START], *[IMAGE] * 24, END, 3]])
    images = visual(IMAGE_GRIDS[:1], 3)
    images = VisualInput(images.patches[:, : 18 * frames], images.grids)
    prompt = model.prompt(token_ids, images)
    arguments = published_inputs(token_ids, images, videos, torch.zeros_like(token_ids))
    for other in (reference, again):
        close(model(token_ids, images), other(**arguments).logits, 2e-4)
    assert prompt.ids.max() < token_ids.shape[1]


@pytest.mark.parametrize("generation", CASES)
@torch.no_grad()
def test_answers_token_for_token(generation, tmp_path):
    reference = published(generation)
    # Large embeddings, so that each token depends on the one before it.
    reference.model.language_model.embed_tokens.weight.mul_(6)
    reference.lm_head.weight.mul_(6)
    reference.save_pretrained(tmp_path)
    model = QwenVL.from_pretrained(tmp_path)
    video = [2, 4, 6]
    rows = [
        [1, *block(IMAGE_GRIDS[0], IMAGE), 3, 4],
        [*video_block(video, generation), 2, *block(IMAGE_GRIDS[1], IMAGE), 5],
        [7, 8, 9],
    ]
    images = [visual([grid], seed) for seed, grid in enumerate(IMAGE_GRIDS[:2])]
    seconds = torch.tensor([0.4]) if generation == "2.5" else None
    videos = [None, visual([video], 5, seconds), None]
    prompts, expected = [], []
    for row, image, clip in zip(rows, [*images, None], videos, strict=True):
        token_ids = torch.tensor([row])
        prompts.append(model.prompt(token_ids, image, clip))
        arguments = published_inputs(token_ids, image, clip, torch.zeros_like(token_ids))
        options = {"do_sample": False, "max_new_tokens": 9, "min_new_tokens": 9, "pad_token_id": 0}
        expected.append(reference.generate(**arguments, **options)[0, len(row) :].tolist())
    assert len({tuple(tokens) for tokens in expected}) == 3 and max(len(set(tokens)) for tokens in expected) > 2
    for use_cache in (True, False):
        answers = model.answer(prompts, Sampling(max_new_tokens=9), use_cache=use_cache)
        assert [answer.tolist() for answer in answers] == expected
        alone = [
            model.answer([prompt], Sampling(max_new_tokens=9), use_cache=use_cache)[0].tolist() for prompt in prompts
        ]
        assert alone == expected


# ── Files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("generation", CASES)
def test_public_names_and_settings_are_written_and_read(generation, tmp_path):
    """Public files of the first two generations are flat, with `visual.` and `model.`."""
    reference = published(generation)
    reference.save_pretrained(tmp_path / "published")
    model = QwenVL.from_pretrained(tmp_path / "published")
    model.save_pretrained(tmp_path / "written")
    names = set(load_file(tmp_path / "written" / "model.safetensors"))
    config = json.loads((tmp_path / "written" / "config.json").read_text())
    assert "lm_head.weight" in names
    if generation == "3":
        assert {"model.visual.pos_embed.weight", "model.language_model.norm.weight"} < names
        assert config["text_config"]["rope_scaling"]["mrope_interleaved"] is True
        return
    assert {"visual.patch_embed.proj.weight", "model.norm.weight"} < names
    assert config["rope_scaling"] == {"type": "mrope", "mrope_section": [1, 3, 2]} and config["hidden_size"] == 24
    assert "text_config" not in config
    later = {
        "model." + name if name.startswith("visual.") else name.replace("model.", "model.language_model."): tensor
        for name, tensor in load_file(tmp_path / "written" / "model.safetensors").items()
    }
    save_file(later, tmp_path / "written" / "model.safetensors")
    again = QwenVL.from_pretrained(tmp_path / "written")
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("generation", CASES)
def test_a_config_that_leaves_every_default_out(generation, tmp_path):
    model_type = config_mapping.MODEL_TYPES[generation]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    if generation != "2":
        # The class's defaults of the two parts do not fit each other.
        with pytest.raises(CourseError, match="merged tokens have width 3584"):
            config_mapping.read_qwen_vl_config(tmp_path)
        return
    with pytest.raises(CourseError, match="merged tokens have width 3584 and the language model has width 8192"):
        config_mapping.read_qwen_vl_config(tmp_path)


@pytest.mark.parametrize("generation", CASES)
def test_the_tables_have_a_row_for_every_setting_of_the_published_class(generation):
    _, config, _, _ = CASES[generation]
    parts = config.sub_configs_defaults
    for name, rows in (("vision_config", config_mapping.VISION), ("text_config", config_mapping.LANGUAGE)):
        names = {row.published for row in rows[generation]} | {"head_dim"}
        assert {field.name for field in fields(parts[name].config_class)} - NO_EFFECT | {"head_dim"} == names
    outer = {row.published for row in config_mapping.OUTER} | set(config_mapping.PARTS)
    assert {field.name for field in fields(config)} - NO_EFFECT == outer


REFUSED = [
    ("2", {"text_config": {"use_sliding_window": True}}, "use_sliding_window is True"),
    ("2", {"text_config": {"hidden_act": "gelu"}}, "hidden_act is 'gelu', supported is only 'silu'"),
    ("2", {"text_config": {"head_dim": 10}}, "head_dim is 10, supported is only 12"),
    ("2", {"text_config": {"rope_parameters": {"mrope_section": [1, 2]}}}, "mrope_section is .* three whole numbers"),
    ("2", {"text_config": {"rope_parameters": {"mrope_section": [1, 2, 2]}}}, "three numbers that add up to 6"),
    ("2", {"text_config": {"rope_parameters": {"rope_type": "longrope"}}}, "'longrope'; supported are"),
    ("2", {"text_config": {"num_attention_heads": 5}}, "does not divide into 5 heads"),
    ("2", {"vision_config": {"rope_parameters": {"rope_type": "yarn"}}}, "vision_config is 'yarn'"),
    ("2", {"vision_config": {"patch_size": [3, 3]}}, r"patch_size is \[3, 3\]"),
    ("2", {"vision_config": {"hidden_act": "swish"}}, "hidden_act is 'swish'"),
    ("2", {"vision_config": {"num_heads": 8}}, "8 heads give no head dimension that is a multiple of 4"),
    ("2", {"vision_config": {"hidden_size": 20}}, "width 20 and the language model has width 24"),
    ("2", {"video_token_id": IMAGE}, "images and videos have the same token id"),
    ("2.5", {"vision_config": {"window_size": 5}}, "a window of 5 pixels is smaller"),
    ("2.5", {"vision_config": {"fullatt_block_indexes": 3}}, "fullatt_block_indexes is 3"),
    ("3", {"vision_config": {"num_position_embeddings": 24}}, "num_position_embeddings is 24, expected the square"),
    ("3", {"vision_config": {"deepstack_visual_indexes": [2, 0]}}, r"DeepStack reads the blocks \[2, 0\]"),
    ("3", {"vision_config": {"deepstack_visual_indexes": [0, 3]}}, "from 0 to 2"),
    ("3", {"text_config": {"attention_bias": True}}, "attention_bias is True"),
    ("3", {"quantization_config": {"bits": 4}}, "quantization_config"),
    ("3", {"model_type": "qwen3_vl_moe"}, "'qwen3_vl_moe'; expected qwen2_vl or"),
]


@pytest.mark.parametrize(("generation", "change", "message"), REFUSED)
def test_what_is_not_supported_is_refused_by_name(generation, change, message, tmp_path):
    published(generation).save_pretrained(tmp_path)

    def update(config, change=change):
        for name, value in change.items():
            if isinstance(value, dict) and isinstance(config.get(name), dict):
                update(config[name], value)
            else:
                config[name] = value

    rewrite_config(tmp_path, update)
    with pytest.raises(CourseError, match=message):
        QwenVL.from_pretrained(tmp_path)


@pytest.mark.parametrize("generation", ["2", "3"])
def test_an_output_layer_that_differs_from_the_tied_embedding_is_refused(generation, tmp_path):
    published(generation, tied=True).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(weights | {"lm_head.weight": torch.zeros(37, 24)}, tmp_path / "model.safetensors")
    with pytest.raises(CourseError, match=r"untied: lm_head\.weight differs from model"):
        QwenVL.from_pretrained(tmp_path)
