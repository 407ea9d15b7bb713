"""Identities of the parts, and errors that name their cause."""

from dataclasses import replace

import pytest
import torch

from lessons.lesson_09_qwen_vl.model import QwenVL, QwenVLConfig, VisionConfig, VisualInput, largest_id, visual_ids
from lessons.lesson_09_qwen_vl.model.patches import cut_into_patches
from lessons.lesson_09_qwen_vl.model.positions import IMAGE, TEXT, TokenGrid, mrope_ids, sequential_ids
from lessons.lesson_09_qwen_vl.model.vision_encoder import VisionEncoder
from shared.errors import CourseError
from shared.testing import redraw_weights
from shared.transformer import DecoderConfig

VISION = VisionConfig(2, 16, 2, 20, 24, patch_size=2, channels=1)
WINDOWS = replace(VISION, norm="rms", gated_mlp=True, activation="silu", window_size=8, full_attention_layers=(1,))
DEEP = replace(VISION, patch_bias=True, grid_size=3, deepstack_layers=(0,))
LANGUAGE = DecoderConfig(40, 24, 2, 2, 1, 20, qkv_bias=True)
CONFIGS = {
    "2": QwenVLConfig("2", VISION, LANGUAGE, (1, 3, 2), 30, 31),
    "2.5": QwenVLConfig("2.5", WINDOWS, LANGUAGE, (1, 3, 2), 30, 31),
    "3": QwenVLConfig("3", DEEP, replace(LANGUAGE, qkv_bias=False), (2, 2, 2), 30, 31),
}


def visual(*grids, seed=0):
    grids = torch.tensor(grids)
    generator = torch.Generator().manual_seed(seed)
    return VisualInput(torch.randn(int(grids.prod(dim=1).sum()), 8, generator=generator), grids)


def encoder(config):
    return redraw_weights(VisionEncoder(config).double())


# ── Identities ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("grid", [(1, 3, 5, 1.0), (7, 3, 5, 1.0), (4, 2, 2, 2.5), (3, 1, 9, 0.3), (1, 1, 1, 4.0)])
def test_the_largest_id_is_the_longest_axis_and_not_the_number_of_tokens(grid):
    ids = visual_ids(*grid)
    assert largest_id(*grid) == ids.max() == max(int((grid[0] - 1) * grid[3]), grid[1] - 1, grid[2] - 1)
    assert sequential_ids(len(ids)).max() == grid[0] * grid[1] * grid[2] - 1
    assert largest_id(64, 16, 16) == 63 and sequential_ids(64 * 16 * 16).max() == 16383


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@torch.no_grad()
def test_items_together_equal_items_alone(config):
    model, grids = encoder(config.vision), [(1, 4, 6), (2, 6, 2), (1, 2, 2), (3, 10, 4)]
    together = visual(*grids)
    parts = together.patches.split([frames * rows * columns for frames, rows, columns in grids])
    alone = [model(VisualInput(part, torch.tensor([grid]))) for part, grid in zip(parts, grids, strict=True)]
    torch.testing.assert_close(model(together).tokens, torch.cat([each.tokens for each in alone]), atol=1e-9, rtol=0)
    for layer, deep in enumerate(model(together).deep):
        torch.testing.assert_close(deep, torch.cat([each.deep[layer] for each in alone]), atol=1e-9, rtol=0)


@torch.no_grad()
def test_windows_larger_than_the_image_are_full_attention():
    model = encoder(WINDOWS)
    patches = visual((2, 4, 6), (1, 8, 2))
    windowed = model(patches).tokens
    model.config = replace(WINDOWS, window_size=64)
    large = model(patches).tokens
    model.config = replace(WINDOWS, window_size=None)
    torch.testing.assert_close(large, model(patches).tokens, atol=1e-9, rtol=0)
    assert (windowed - large).abs().max() > 1e-3


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_weight_gets_a_gradient(config):
    model = redraw_weights(QwenVL(config))
    token_ids = torch.tensor([[1, 30, 30, 30, 2, 31, 31, 3, 31, 31, 4]])
    if config.generation != "3":
        token_ids = torch.tensor([[1, 30, 30, 30, 2, 31, 31, 31, 31, 3, 4]])
    model(token_ids, visual((1, 2, 6)), visual((2, 2, 4), seed=1)).square().mean().backward()
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        # A bias of the keys hardly changes the softmax; rotary positions make it matter.
        assert gradient is not None and gradient.abs().max() > 0, name


def test_text_has_equal_ids_and_follows_the_largest():
    ids = mrope_ids([TEXT, *[IMAGE] * 10, TEXT, TEXT], {IMAGE: iter([TokenGrid(1, 2, 5)])})
    assert ids[0].tolist() == [0, 0, 0] and ids[-2:].tolist() == [[6, 6, 6], [7, 7, 7]]
    assert ids[1:-2].amin(dim=0).tolist() == [1, 1, 1] and ids[1:-2].amax(dim=0).tolist() == [1, 2, 5]
    assert mrope_ids([], {}).shape == (0, 3)


# ── Errors ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("token_ids", "images", "message"),
    [
        ([1, 30, 2], visual((1, 2, 4)), "the text has 1 image tokens, but the images take 2"),
        ([1, 30, 2], None, "the text has 1 image tokens, but the images take 0"),
        ([1, 2], visual((1, 2, 2)), "the text has 0 image tokens, but the images take 1"),
        ([30, 1, 30, 2], visual((1, 2, 4)), "the image tokens from token 0 on are fewer than the 2 of a grid"),
    ],
)
def test_text_and_images_that_do_not_fit_are_refused(token_ids, images, message):
    with pytest.raises(ValueError, match=message):
        QwenVL(CONFIGS["2"])(torch.tensor([token_ids]), images)


def test_ids_without_a_grid_are_refused():
    with pytest.raises(ValueError, match="token 1 has no image"):
        mrope_ids([TEXT, IMAGE], {IMAGE: iter([])})
    with pytest.raises(ValueError, match="token 0 has no video"):
        mrope_ids([2], {})


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"7 patches do not fill the grids .* expected 8"):
        VisualInput(torch.zeros(7, 8), torch.tensor([[1, 2, 4]]))
    with pytest.raises(ValueError, match="patches have 9 values, expected 8: 1 channels of 2 frames of 2×2"):
        VisionEncoder(VISION)(VisualInput(torch.zeros(8, 9), torch.tensor([[1, 2, 4]])))
    with pytest.raises(ValueError, match="multiples of 2"):
        VisionEncoder(VISION)(VisualInput(torch.zeros(9, 8), torch.tensor([[1, 3, 3]])))
    for size in ((6, 8), (8, 6), (0, 8)):
        with pytest.raises(ValueError, match="does not divide into tokens of 4×4 pixels"):
            cut_into_patches(torch.zeros(1, 1, *size), 2, 2, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generation": "4"}, "generation is '4'"),
        ({"sections": (1, 2, 2)}, "three numbers that add up to 6"),
        ({"sections": (7, -1, 0)}, "three numbers that add up to 6"),
        ({"vision": replace(VISION, output_width=20)}, "width 20 and the language model has width 24"),
        ({"video_token_id": 30}, "the same token id, 30"),
        ({"language": replace(LANGUAGE, positions="learned")}, "has learned positions; M-RoPE needs rotary"),
    ],
)
def test_values_that_exclude_each_other(change, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIGS["2"], **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "batch"}, "norm is 'batch'"),
        ({"activation": "relu9"}, "activation is 'relu9'"),
        ({"heads": 3}, "width 16 and 3 heads"),
        ({"window_size": 3}, "smaller than a token of 4 pixels"),
        ({"deepstack_layers": (1, 1)}, "ascending numbers from 0 to 1"),
    ],
)
def test_vision_values_that_exclude_each_other(change, message):
    with pytest.raises(ValueError, match=message):
        replace(VISION, **change)


@pytest.mark.parametrize(
    ("generation", "change"),
    [
        ("2", {"vision": WINDOWS}),
        ("2", {"vision": DEEP}),
        ("2.5", {"vision": replace(WINDOWS, window_size=None)}),
        ("2.5", {"vision": VISION}),
        ("3", {"vision": VISION}),
        ("3", {"language": LANGUAGE}),
        ("2", {"language": replace(LANGUAGE, qkv_bias=False)}),
        ("2", {"tokens_per_second": 2.0}),
    ],
)
def test_a_model_without_a_published_class_is_not_written(generation, change, tmp_path):
    with pytest.raises(CourseError, match=r"no published class supports|has window attention|does not fit this model"):
        QwenVL(replace(CONFIGS[generation], **change)).save_pretrained(tmp_path / "written")
    assert not (tmp_path / "written").exists()
