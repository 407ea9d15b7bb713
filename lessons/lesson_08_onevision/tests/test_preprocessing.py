"""The image processor: the same bytes as the published class, or a setting that is refused by name."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaOnevisionImageProcessorPil

from lessons.lesson_08_onevision.model import OneVisionPreprocessing
from lessons.lesson_08_onevision.model.preprocessing import SETTINGS
from shared.errors import CourseError

FILE = "preprocessor_config.json"
CLASS = {"image_processor_type": "LlavaOnevisionImageProcessor"}
PINPOINTS = [[rows * 12, columns * 12] for rows in (1, 2, 3) for columns in (1, 2, 4)]
SMALL = CLASS | {"size": {"height": 12, "width": 12}, "image_grid_pinpoints": PINPOINTS}
SIZES = [(41, 29), (29, 41), (24, 24), (12, 12), (1, 1), (5000, 1), (1, 300), (7, 5), (300, 17)]


def noise(width, height, mode="RGB"):
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels if channels > 1 else pixels[:, :, 0], mode)


def write(folder, settings, file=FILE):
    (folder / file).write_text(json.dumps(settings))
    return folder


def assert_equal_bytes(folder, images):
    """Compare every image alone, and all as images of one sequence."""
    published = LlavaOnevisionImageProcessorPil.from_pretrained(folder)
    preprocessing = OneVisionPreprocessing.from_pretrained(folder)
    for image in images:
        expected = published(image, return_tensors="pt")["pixel_values"][0]
        tiles = preprocessing.single(image)
        assert tiles.dtype == expected.dtype == torch.float32
        assert torch.equal(tiles, expected)
    images = [*images, *images[:1]]  # the published class cuts an only image into tiles
    expected = published([images], return_tensors="pt")["pixel_values"]
    several = preprocessing.several(images)
    assert len(several) == len(expected)
    for tiles, each in zip(several, expected, strict=True):
        assert torch.equal(tiles, each)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"resample": 2},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7], "rescale_factor": 1 / 127.5},
        {"do_pad": False, "do_center_crop": None, "crop_size": None, "default_to_square": False},
        {"image_grid_pinpoints": PINPOINTS[::-1], "do_center_crop": False},
    ],
)
def test_pixels_equal_the_published_class(settings, tmp_path):
    write(tmp_path, SMALL | settings)
    assert_equal_bytes(tmp_path, [noise(*size) for size in SIZES])


def test_the_published_sizes(tmp_path):
    """Their files name the tiles, and mean and standard deviation of 0.5."""
    write(tmp_path, CLASS | {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 384, "width": 384}})
    assert_equal_bytes(tmp_path, [noise(500, 300), noise(90, 1000)])
    write(tmp_path, CLASS)
    assert OneVisionPreprocessing.from_pretrained(tmp_path) == OneVisionPreprocessing()
    assert_equal_bytes(tmp_path, [noise(400, 390)])


def test_images_that_are_not_rgb(tmp_path):
    write(tmp_path, SMALL)
    preprocessing = OneVisionPreprocessing.from_pretrained(tmp_path)
    gray = noise(31, 40, "L")
    assert torch.equal(preprocessing.single(gray), preprocessing.single(gray.convert("RGB")))
    clear = Image.new("RGBA", (9, 9), (255, 0, 0, 0))
    assert torch.equal(preprocessing.several([clear])[0], preprocessing.several([Image.new("RGB", (9, 9), "white")])[0])


def test_frames_are_resized_without_padding(tmp_path):
    write(tmp_path, SMALL)
    preprocessing = OneVisionPreprocessing.from_pretrained(tmp_path)
    frames = [noise(41, 29), noise(42, 29)]
    expected = [preprocessing.several([frame.resize((12, 12), Image.Resampling.BICUBIC)])[0] for frame in frames]
    assert torch.equal(preprocessing.frames(frames), torch.cat(expected))


def test_what_is_written_is_read_by_both(tmp_path):
    preprocessing = OneVisionPreprocessing(
        8, ((8, 16), (24, 8)), Image.Resampling.LANCZOS, 1 / 250, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    )
    preprocessing.save_pretrained(tmp_path)
    assert OneVisionPreprocessing.from_pretrained(tmp_path) == preprocessing
    assert_equal_bytes(tmp_path, [noise(*size) for size in SIZES] + [noise(9, 9, "L")])
    LlavaOnevisionImageProcessorPil.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    assert OneVisionPreprocessing.from_pretrained(tmp_path / "again") == preprocessing


def test_the_newer_file_of_a_whole_processor_is_read(tmp_path):
    write(tmp_path, {"image_processor": SMALL}, "processor_config.json")
    assert_equal_bytes(tmp_path, [noise(40, 30)])
    write(tmp_path, CLASS)
    assert OneVisionPreprocessing.from_pretrained(tmp_path).tile_size == 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_resize": False}, "do_resize is False, supported is only True"),
        ({"do_rescale": False}, "do_rescale is False"),
        ({"do_normalize": None}, "do_normalize is null"),
        ({"do_center_crop": True}, "do_center_crop is True, expected false or null"),
        ({"crop_size": {"height": 12, "width": 12}}, "crop_size is .* supported is only null"),
        ({"size": {"shortest_edge": 12}}, "size is .* expected equal height and width"),
        ({"size": {"height": 12, "width": 13}}, "size is "),
        ({"size": {"height": 0, "width": 0}}, "size is .* expected a whole number of at least 1"),
        ({"size": 12}, "size is 12"),
        ({"image_grid_pinpoints": [[12, 13]]}, "12 × 13 is not divisible into tiles of 12"),
        ({"image_grid_pinpoints": [12, 12]}, "image_grid_pinpoints is "),
        ({"resample": None}, "resample is null"),
        ({"resample": 9}, "resample is 9, expected the number of one of Pillow's filters"),
        ({"image_mean": [0.5, 0.5]}, r"image_mean is \[0.5, 0.5\]"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std is .* expected a number above 0"),
        ({"image_std": math.nan}, "image_std is nan"),
        ({"image_processor_type": "LlavaNextImageProcessor"}, "the class LlavaNextImageProcessor; expected Llava"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(settings, message, tmp_path):
    write(tmp_path, SMALL | settings)
    with pytest.raises(CourseError, match=message):
        OneVisionPreprocessing.from_pretrained(tmp_path)


def test_without_a_class_the_model_beside_it_decides(tmp_path):
    write(tmp_path, {key: value for key, value in SMALL.items() if key not in CLASS})
    write(tmp_path, {"model_type": "llava_onevision"}, "config.json")
    assert OneVisionPreprocessing.from_pretrained(tmp_path).tile_size == 12
    write(tmp_path, {"model_type": "siglip"}, "config.json")
    with pytest.raises(CourseError, match="image processor of siglip; expected"):
        OneVisionPreprocessing.from_pretrained(tmp_path)


def test_images_without_pixels_and_videos_without_frames_are_refused():
    preprocessing, empty = OneVisionPreprocessing(), Image.new("RGB", (0, 5))
    with pytest.raises(ValueError, match="5 × 0 pixels"):
        preprocessing.single(empty)
    with pytest.raises(ValueError, match="5 × 0 pixels"):
        preprocessing.several([Image.new("RGB", (0, 5))])
    with pytest.raises(ValueError, match="a video of 0 frames"):
        preprocessing.frames([])
    assert preprocessing.several([]) == []


def test_every_setting_of_the_published_class_has_a_row():
    assert {row.published for row in SETTINGS} == set(LlavaOnevisionImageProcessorPil()._valid_kwargs_names)
