"""The image processor: the same bytes as the published class, or a setting that is refused by name."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GotOcr2ImageProcessorPil

from lessons.lesson_10_internvl.model.image_processing import SETTINGS, InternVLImageProcessing
from lessons.lesson_10_internvl.model.tiling import tile_count, tile_grids
from shared.errors import CourseError

FILE = "preprocessor_config.json"
# As the published checkpoints of InternVL3 have it.
PUBLIC = {
    "crop_to_patches": False,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "GotOcr2ImageProcessorFast",
    "image_std": [0.229, 0.224, 0.225],
    "max_patches": 12,
    "min_patches": 1,
    "processor_class": "InternVLProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 448, "width": 448},
}
SMALL = {**PUBLIC, "size": {"height": 20, "width": 20}, "crop_to_patches": True}
SIZES = [(41, 29), (29, 41), (200, 1), (1, 150), (7, 5), (123, 77), (20, 20), (40, 40), (90, 20), (61, 62), (80, 60)]


def noise(width, height, mode="RGB"):
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels if channels > 1 else pixels[:, :, 0], mode)


def write(folder, settings, file=FILE):
    (folder / file).write_text(json.dumps(settings))
    return folder


def assert_equal_bytes(folder, images, **options):
    published = GotOcr2ImageProcessorPil.from_pretrained(folder)
    crop = {"crop_to_patches": options["tiled"]} if options else {}
    output = published(images, return_tensors="pt", **crop)
    processing = InternVLImageProcessing.from_pretrained(folder)
    tiles = processing(images, **options)
    assert tiles.pixels.dtype == output["pixel_values"].dtype == torch.float32
    assert tiles.counts.tolist() == torch.as_tensor(output["num_patches"]).tolist()
    assert torch.equal(tiles.pixels, output["pixel_values"])
    for image, count in zip(images, tiles.counts.tolist(), strict=True):
        assert tile_count(processing.grid((image.height, image.width), **options)) == count


@pytest.mark.parametrize(
    "settings",
    [
        SMALL,
        {**SMALL, "crop_to_patches": False},
        {**SMALL, "min_patches": 3, "max_patches": 6, "resample": 2, "rescale_factor": 0.01},
        {**SMALL, "max_patches": 1},
    ],
)
def test_the_same_bytes_for_images_of_any_size(settings, tmp_path):
    images = [noise(*size) for size in SIZES]
    assert_equal_bytes(write(tmp_path, settings), images)


def test_the_prompt_decides_on_tiles(tmp_path):
    write(tmp_path, {**SMALL, "crop_to_patches": False})
    for tiled in (True, False):
        assert_equal_bytes(tmp_path, [noise(50, 23), noise(20, 60)], tiled=tiled)


def test_public_sizes_and_defaults(tmp_path):
    assert_equal_bytes(write(tmp_path, PUBLIC), [noise(500, 300)], tiled=True)
    assert_equal_bytes(write(tmp_path, {}), [noise(400, 300)])


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_gray_images(mode, tmp_path):
    assert_equal_bytes(write(tmp_path, SMALL), [noise(31, 22, mode)])


def test_the_grid_follows_the_upright_image(tmp_path):
    image = noise(60, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90°
    image.save(tmp_path / "turned.png", exif=exif)
    tiles = InternVLImageProcessing(tile_size=20, tiled=True).cut(Image.open(tmp_path / "turned.png"))
    assert len(tiles) == 4
    assert np.array_equal(np.concatenate(tiles[:3]), np.asarray(image.transpose(Image.Transpose.ROTATE_270)))


def test_settings_are_written_as_they_are_read(tmp_path):
    for settings in (PUBLIC, SMALL):
        processing = InternVLImageProcessing.from_pretrained(write(tmp_path, settings))
        processing.save_pretrained(tmp_path)
        assert InternVLImageProcessing.from_pretrained(tmp_path) == processing
    assert_equal_bytes(tmp_path, [noise(50, 33)])


def test_other_files_of_the_published_class(tmp_path):
    write(tmp_path, {"processor_class": "InternVLProcessor", "image_processor": SMALL}, "processor_config.json")
    assert InternVLImageProcessing.from_pretrained(tmp_path).tile_size == 20
    (tmp_path / "processor_config.json").unlink()
    write(tmp_path, {"min_patches": 2})
    write(tmp_path, {"model_type": "internvl"}, "config.json")
    assert InternVLImageProcessing.from_pretrained(tmp_path).min_tiles == 2
    write(tmp_path, {"model_type": "clip"}, "config.json")
    with pytest.raises(CourseError, match="image processor of clip; expected"):
        InternVLImageProcessing.from_pretrained(tmp_path)


def test_no_image_and_no_area_are_refused():
    with pytest.raises(ValueError, match="no image was given"):
        InternVLImageProcessing()([])
    with pytest.raises(ValueError, match="an image of 0 × 5 pixels"):
        InternVLImageProcessing().grid((0, 5))


def test_grids_have_their_number_of_tiles():
    assert tile_grids(1, 4) == ((1, 1), (2, 1), (1, 2), (3, 1), (1, 3), (4, 1), (2, 2), (1, 4))
    assert tile_grids(3, 3) == ((3, 1), (1, 3))
    assert [tile_count(grid) for grid in ((1, 1), (1, 2), (3, 4))] == [1, 3, 13]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_resize": False}, "do_resize is False, supported is only True"),
        ({"do_rescale": False}, "do_rescale is False"),
        ({"do_normalize": None}, "do_normalize is null"),
        ({"size": {"height": 3, "width": 4}}, "size is .* expected equal height and width"),
        ({"size": {"shortest_edge": 4}}, "size is "),
        ({"crop_to_patches": 1}, "crop_to_patches is 1, expected true or false"),
        ({"min_patches": 0}, "min_patches is 0, expected a whole number of at least 1"),
        ({"min_patches": 9, "max_patches": 4}, "at least 9 and at most 4 tiles"),
        ({"resample": 9}, "resample is 9, expected the number of one of Pillow's filters"),
        ({"image_mean": [0.5, 0.5]}, r"image_mean is \[0.5, 0.5\]"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std is .* expected three numbers above 0"),
        ({"rescale_factor": 0}, "rescale_factor is 0"),
        ({"image_processor_type": "CLIPImageProcessor"}, "the class CLIPImageProcessor; expected GotOcr2"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(settings, message, tmp_path):
    write(tmp_path, {"image_processor_type": "GotOcr2ImageProcessor"} | settings)
    with pytest.raises(CourseError, match=message):
        InternVLImageProcessing.from_pretrained(tmp_path)


def test_every_setting_of_the_published_class_has_a_row():
    assert {row.published for row in SETTINGS} == set(GotOcr2ImageProcessorPil()._valid_kwargs_names)
