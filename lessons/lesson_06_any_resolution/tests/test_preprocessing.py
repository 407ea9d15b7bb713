"""The NaFlex image processor: the same bytes as the published class, or a setting that is refused by name."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Siglip2ImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches

from lessons.lesson_06_any_resolution.model import NaFlexPreprocessing, budget_grid, budget_grids, pad
from lessons.lesson_06_any_resolution.model.preprocessing import SETTINGS
from shared.errors import CourseError

FILE = "preprocessor_config.json"
# As the published checkpoints have it.
PUBLIC = {
    "do_convert_rgb": None,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "Siglip2ImageProcessorFast",
    "image_std": [0.5, 0.5, 0.5],
    "max_num_patches": 256,
    "patch_size": 16,
    "processor_class": "Siglip2Processor",
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
}
SIZES = [(41, 29), (29, 41), (24, 24), (1, 1), (5000, 1), (1, 300), (7, 5), (300, 17), (64, 64)]


def noise(width, height, mode="RGB"):
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels if channels > 1 else pixels[:, :, 0], mode)


def write(folder, settings, file=FILE):
    (folder / file).write_text(json.dumps(settings))
    return folder


def assert_equal_bytes(folder, images, length, **options):
    """Compare pixels, mask and shapes of what both classes read from a folder."""
    published = Siglip2ImageProcessorPil.from_pretrained(folder)(images, return_tensors="pt", **options)
    batch = pad(NaFlexPreprocessing.from_pretrained(folder)(images), length)
    assert batch.patches.dtype == published["pixel_values"].dtype == torch.float32
    assert torch.equal(batch.patches, published["pixel_values"])
    assert torch.equal((batch.segments >= 0).int(), published["pixel_attention_mask"])
    assert torch.equal(batch.grids, published["spatial_shapes"])


# ── The same bytes ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "length"),
    [
        ({}, 256),
        (PUBLIC, 256),
        ({"patch_size": 4, "max_num_patches": 30}, 30),
        ({"patch_size": 7, "max_num_patches": 3}, 3),
        ({"patch_size": 14, "max_num_patches": 1}, 1),
        ({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}, 256),
        ({"image_mean": [0, 0, 0], "image_std": [1, 1, 1], "rescale_factor": 1 / 127.5}, 256),
        ({"image_mean": 0.4, "image_std": 0.3, "resample": 3, "size": {"height": 9, "width": 9}}, 256),
        ({"resample": 0, "do_center_crop": False, "crop_size": 3, "do_pad": True, "default_to_square": False}, 256),
        (dict.fromkeys(("resample", "do_convert_rgb", "size", "do_pad", "crop_size", "default_to_square")), 256),
    ],
)
def test_pixels_masks_and_shapes_equal_the_published_class(settings, length, tmp_path):
    write(tmp_path, {"image_processor_type": "Siglip2ImageProcessor"} | settings)
    assert_equal_bytes(tmp_path, [noise(*size) for size in SIZES], length)


def test_images_that_are_not_rgb(tmp_path):
    """The published class converts them on request only; without it, it fails."""
    palette = noise(30, 20).quantize(16)
    transparent = palette.copy()
    transparent.info["transparency"] = 3
    images = [*(noise(31, 40, mode) for mode in ("L", "LA", "RGBA", "CMYK")), palette, transparent]
    write(tmp_path, PUBLIC)
    assert_equal_bytes(tmp_path, images, 256, do_convert_rgb=True)
    with pytest.raises(ValueError, match="mean must have 1 elements"):
        Siglip2ImageProcessorPil.from_pretrained(tmp_path)(images[:1])


def test_what_is_written_is_read_by_both(tmp_path):
    preprocessing = NaFlexPreprocessing(8, 20, Image.Resampling.LANCZOS, 1 / 250, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    preprocessing.save_pretrained(tmp_path)
    assert NaFlexPreprocessing.from_pretrained(tmp_path) == preprocessing
    assert_equal_bytes(tmp_path, [noise(*size) for size in SIZES] + [noise(9, 9, "L")], 20)
    Siglip2ImageProcessorPil.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    assert NaFlexPreprocessing.from_pretrained(tmp_path / "again") == preprocessing


def test_the_newer_file_of_a_whole_processor_is_read(tmp_path):
    nested = {"image_processor_type": "Siglip2ImageProcessor", "max_num_patches": 9}
    write(tmp_path, {"processor_class": "Siglip2Processor", "image_processor": nested}, "processor_config.json")
    assert_equal_bytes(tmp_path, [noise(40, 30)], 9)
    write(tmp_path, PUBLIC)
    assert NaFlexPreprocessing.from_pretrained(tmp_path).max_patches == 9


# ── The resize rule ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_grid_equals_the_published_rule():
    random = np.random.default_rng(0)
    for _ in range(300):
        height, width = (int(10 ** random.uniform(0, 4.5)) for _ in range(2))
        patch_size, budget = int(random.integers(1, 40)), int(10 ** random.uniform(0, 3.5))
        expected = get_image_size_for_max_num_patches(height, width, patch_size, budget)
        rows, columns = budget_grid(height, width, patch_size, budget)
        assert (rows * patch_size, columns * patch_size) == expected
        assert rows * columns <= budget


def test_sides_are_stretched_by_less_than_a_patch():
    """The paper's bound, section 2.4.2: the aspect ratio changes by less than one patch per side."""
    sizes = torch.tensor([[480, 640], [1080, 1920], [3000, 700], [500, 500]])
    for (height, width), (rows, columns) in zip(sizes.tolist(), budget_grids(sizes, 16, 256).tolist(), strict=True):
        scale = min(rows * 16 / height, columns * 16 / width)
        assert 0 <= rows * 16 - height * scale < 16
        assert 0 <= columns * 16 - width * scale < 16


def test_tiny_and_slim_images_have_defined_grids():
    # An image is enlarged at most 100 times.
    assert budget_grid(1, 1, 16, 256) == (7, 7)
    assert budget_grid(1, 5000, 16, 256) == (1, 256)
    assert budget_grid(5000, 1, 16, 1) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5, 16, 256), "an image of 0×5 pixels"),
        ((5, 0, 16, 256), "an image of 5×0 pixels"),
        ((5, 5, 0, 256), "patches of 0"),
        ((5, 5, 16, 0), "the token budget is 0"),
        ((1, 10**9, 1, 100), "does not shrink to 100 patches"),
    ],
)
def test_an_impossible_grid_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        budget_grid(*arguments)


def test_an_image_without_pixels_and_a_budget_below_one_patch_are_refused():
    with pytest.raises(ValueError, match="5×0 pixels"):
        NaFlexPreprocessing()([Image.new("RGB", (0, 5))])
    with pytest.raises(ValueError, match="max_patches is 0; expected at least 1"):
        NaFlexPreprocessing(max_patches=0)
    assert NaFlexPreprocessing()([]) == []


# ── Files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_resize": False}, "do_resize is False, supported is only True"),
        ({"do_resize": None}, "do_resize is null"),
        ({"do_rescale": False}, "do_rescale is False"),
        ({"image_mean": None}, "image_mean is null"),
        ({"do_normalize": False}, "do_normalize is False"),
        ({"patch_size": 0}, "patch_size is 0, expected a whole number of at least 1"),
        ({"patch_size": [16, 16]}, "patch_size is "),
        ({"max_num_patches": 0}, "max_num_patches is 0"),
        ({"max_num_patches": "256"}, "max_num_patches is '256'"),
        ({"resample": 9}, "resample is 9, expected the number of one of Pillow's filters"),
        ({"image_mean": [0.5, 0.5]}, r"image_mean is \[0.5, 0.5\]"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std is .* expected a number above 0"),
        ({"image_std": math.nan}, "image_std is nan"),
        ({"rescale_factor": 0}, "rescale_factor is 0"),
        ({"image_processor_type": "SiglipImageProcessor"}, "the class SiglipImageProcessor; expected Siglip2"),
        ({"image_processor_type": 7}, "the class 7"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(settings, message, tmp_path):
    write(tmp_path, {"image_processor_type": "Siglip2ImageProcessor"} | settings)
    with pytest.raises(CourseError, match=message) as raised:
        NaFlexPreprocessing.from_pretrained(tmp_path)
    assert FILE in str(raised.value)


def test_without_a_class_the_model_beside_it_decides(tmp_path):
    write(tmp_path, {"patch_size": 8})
    assert NaFlexPreprocessing.from_pretrained(tmp_path).patch_size == 8
    for model_type in ("siglip2", "siglip2_vision_model"):
        write(tmp_path, {"model_type": model_type}, "config.json")
        assert NaFlexPreprocessing.from_pretrained(tmp_path).patch_size == 8
    write(tmp_path, {"model_type": "siglip"}, "config.json")
    with pytest.raises(CourseError, match="image processor of siglip; expected"):
        NaFlexPreprocessing.from_pretrained(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CourseError, match=f"{FILE} does not exist; .* or in processor_config.json"):
        NaFlexPreprocessing.from_pretrained(tmp_path)


def test_every_setting_of_the_published_class_has_a_row():
    assert {row.published for row in SETTINGS} == set(Siglip2ImageProcessorPil()._valid_kwargs_names)
