"""The image processor: the same bytes as the published class, or a setting that is refused by name."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from lessons.lesson_09_qwen_vl.model.image_processing import SETTINGS, QwenImageProcessing
from shared.errors import CourseError

FILE = "preprocessor_config.json"
# As the published checkpoints of Qwen2-VL and of Qwen3-VL have it.
PUBLIC = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2VLProcessor",
}
QWEN3 = {
    "size": {"longest_edge": 40000, "shortest_edge": 8192},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "Qwen3VLProcessor",
    "image_processor_type": "Qwen2VLImageProcessorFast",
}
ODD = {**PUBLIC, "patch_size": 5, "merge_size": 3, "temporal_patch_size": 3, "min_pixels": 900, "max_pixels": 3000}
SIZES = [(41, 29), (29, 41), (200, 1), (1, 150), (7, 5), (123, 77), (64, 64)]


def noise(width, height, mode="RGB"):
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels if channels > 1 else pixels[:, :, 0], mode)


def write(folder, settings, file=FILE):
    (folder / file).write_text(json.dumps(settings))
    return folder


def assert_equal_bytes(folder, images):
    published = Qwen2VLImageProcessorPil.from_pretrained(folder)(images, return_tensors="pt")
    visual = QwenImageProcessing.from_pretrained(folder)(images)
    assert visual.patches.dtype == published["pixel_values"].dtype == torch.float32
    assert torch.equal(visual.patches, published["pixel_values"])
    assert torch.equal(visual.grids, published["image_grid_thw"])


@pytest.mark.parametrize("settings", [PUBLIC, QWEN3, ODD, {}, {**ODD, "resample": 2, "rescale_factor": 0.01}])
def test_the_same_bytes_for_images_of_any_size(settings, tmp_path):
    write(tmp_path, settings)
    assert_equal_bytes(tmp_path, [noise(*size) for size in SIZES])


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_gray_images(mode, tmp_path):
    assert_equal_bytes(write(tmp_path, ODD), [noise(31, 22, mode)])


def test_settings_are_written_as_they_are_read(tmp_path):
    for settings in (PUBLIC, QWEN3, ODD):
        processing = QwenImageProcessing.from_pretrained(write(tmp_path, settings))
        processing.save_pretrained(tmp_path)
        assert QwenImageProcessing.from_pretrained(tmp_path) == processing
        assert_equal_bytes(tmp_path, [noise(50, 33)])


def test_the_newer_file_of_a_whole_processor_is_read(tmp_path):
    write(tmp_path, {"processor_class": "Qwen3VLProcessor", "image_processor": QWEN3}, "processor_config.json")
    assert QwenImageProcessing.from_pretrained(tmp_path).patch_size == 16


def test_without_a_class_the_model_beside_it_decides(tmp_path):
    write(tmp_path, {"patch_size": 8})
    for model_type in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
        write(tmp_path, {"model_type": model_type}, "config.json")
        assert QwenImageProcessing.from_pretrained(tmp_path).patch_size == 8
    write(tmp_path, {"model_type": "clip"}, "config.json")
    with pytest.raises(CourseError, match="image processor of clip; expected"):
        QwenImageProcessing.from_pretrained(tmp_path)


def test_no_image_and_too_narrow_images_are_refused():
    with pytest.raises(ValueError, match="no image was given"):
        QwenImageProcessing()([])
    with pytest.raises(ValueError, match="sides in a ratio of at most 200"):
        QwenImageProcessing()([Image.new("RGB", (201, 1))])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_resize": False}, "do_resize is False, supported is only True"),
        ({"do_rescale": False}, "do_rescale is False"),
        ({"do_normalize": None}, "do_normalize is null"),
        ({"patch_size": 0}, "patch_size is 0, expected a whole number of at least 1"),
        ({"merge_size": "2"}, "merge_size is '2'"),
        ({"temporal_patch_size": None}, "temporal_patch_size is null"),
        ({"size": {"height": 3, "width": 3}}, "size is .* expected an object with shortest_edge"),
        ({"size": {"shortest_edge": 0, "longest_edge": 9}}, "size is "),
        ({"min_pixels": 9, "max_pixels": 4}, "at least 9 and at most 4 pixels"),
        ({"resample": 9}, "resample is 9, expected the number of one of Pillow's filters"),
        ({"image_mean": [0.5, 0.5]}, r"image_mean is \[0.5, 0.5\]"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std is .* expected three numbers above 0"),
        ({"rescale_factor": 0}, "rescale_factor is 0"),
        ({"image_processor_type": "CLIPImageProcessor"}, "the class CLIPImageProcessor; expected Qwen2VL"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(settings, message, tmp_path):
    write(tmp_path, {"image_processor_type": "Qwen2VLImageProcessor"} | settings)
    with pytest.raises(CourseError, match=message):
        QwenImageProcessing.from_pretrained(tmp_path)


def test_every_setting_of_the_published_class_has_a_row():
    assert {row.published for row in SETTINGS} == set(Qwen2VLImageProcessorPil()._valid_kwargs_names)
