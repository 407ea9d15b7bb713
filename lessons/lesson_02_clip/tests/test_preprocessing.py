"""Settings of image processors: the pixels equal those of the published class, or the setting is refused by name."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BitImageProcessorPil,
    BlipImageProcessorPil,
    CLIPImageProcessorPil,
    LlavaImageProcessorPil,
    SiglipImageProcessorPil,
)

from lessons.lesson_02_clip.model.preprocessing import ImagePreprocessing
from lessons.lesson_02_clip.model.preprocessing_config import CLASS_DEFAULTS
from shared.errors import CourseError

PUBLISHED = {
    published.__name__.removesuffix("Pil"): published
    for published in (
        *(CLIPImageProcessorPil, LlavaImageProcessorPil, BitImageProcessorPil),
        *(SiglipImageProcessorPil, BlipImageProcessorPil),
    )
}
SQUARE, SHORTEST = {"height": 24, "width": 24}, {"shortest_edge": 24}
SMALL = {"size": SQUARE, "crop_size": SQUARE}


def noise(width, height, mode="RGB", seed=0):
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels if channels > 1 else pixels[:, :, 0], mode)


def images():
    """Return images that are wide, tall, square, tiny and slim, in every mode, with and without transparency."""
    palette = noise(30, 20).quantize(16)
    transparent_palette, transparent_color = palette.copy(), noise(30, 20)
    transparent_palette.info["transparency"] = 3
    transparent_color.info["transparency"] = transparent_color.getpixel((2, 2))
    sizes = [(41, 29), (29, 41), (24, 24), (7, 5), (50, 3)]
    return [
        *(noise(*size) for size in sizes),
        *(noise(31, 40, mode) for mode in ("L", "LA", "RGBA", "CMYK")),
        *(palette, transparent_palette, transparent_color, noise(20, 20).convert("1")),
    ]


def write(folder, settings, file="preprocessor_config.json"):
    (folder / file).write_text(json.dumps(settings))
    return folder


def published_pixels(name, folder, photos):
    return torch.as_tensor(np.stack(PUBLISHED[name].from_pretrained(folder)(photos)["pixel_values"]))


def assert_pixels_equal_the_published_class(folder, name):
    actual = ImagePreprocessing.from_pretrained(folder)(images())
    torch.testing.assert_close(actual, published_pixels(name, folder, images()), atol=1e-5, rtol=0)


ALIKE = {
    "nothing": {},
    "stretched, then cropped in vain": {"size": SQUARE, "do_center_crop": True, "crop_size": SQUARE},
    "stretched, then cropped": {"size": {"height": 30, "width": 30}, "do_center_crop": True, "crop_size": SQUARE},
    "stretched, then framed": {"size": {"height": 20, "width": 20}, "do_center_crop": True, "crop_size": SQUARE},
    "shortest edge, then cropped": {"size": {"shortest_edge": 31}, "do_center_crop": True, "crop_size": SQUARE},
    "shortest edge, then framed": {"size": {"shortest_edge": 15}, "do_center_crop": True, "crop_size": SQUARE},
    "stretched": {"size": SQUARE, "do_center_crop": False},
    "a list of height and width": {"size": [24, 24], "do_center_crop": False},
    "numbers": {"size": 24, "crop_size": 24, "do_center_crop": True},
    "numbers that mean both sides": {"size": 30, "crop_size": 24, "do_center_crop": True, "default_to_square": True},
    "numbers that mean the shortest edge": {
        "size": 30,
        "crop_size": 24,
        "do_center_crop": True,
        "default_to_square": False,
    },
    "nulls": {"size": SQUARE, **dict.fromkeys(("do_center_crop", "crop_size", "do_pad", "default_to_square"))},
    "another mean": {**SMALL, "do_center_crop": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]},
    "one mean": {**SMALL, "do_center_crop": True, "image_mean": 0.4, "image_std": 0.3},
    "bilinear": {**SMALL, "do_center_crop": True, "resample": 2},
    "padding that changes nothing": {**SMALL, "do_center_crop": True, "do_pad": True, "pad_size": SQUARE},
    "no padding": {"size": SHORTEST, "crop_size": SQUARE, "do_center_crop": True, "do_pad": False, "pad_size": 99},
    "padding": {"size": SHORTEST, "crop_size": SQUARE, "do_center_crop": True, "do_pad": True},
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("settings", ALIKE.values(), ids=ALIKE)
def test_pixels_equal_those_of_the_published_class(settings, name, tmp_path):
    write(tmp_path, {"image_processor_type": name, **settings})
    assert_pixels_equal_the_published_class(tmp_path, name)


@pytest.mark.parametrize("crop", [{"do_center_crop": False}, {}])
def test_llava_pads_to_a_square_and_needs_no_crop(crop, tmp_path):
    write(
        tmp_path, {"image_processor_type": "LlavaImageProcessor", "do_pad": True, "size": {"shortest_edge": 224}} | crop
    )
    preprocessing = ImagePreprocessing.from_pretrained(tmp_path)
    assert preprocessing.pad and preprocessing.size == 224
    assert_pixels_equal_the_published_class(tmp_path, "LlavaImageProcessor")


def test_the_class_decides_on_what_a_file_leaves_out(tmp_path):
    for name in PUBLISHED:
        preprocessing = ImagePreprocessing.from_pretrained(write(tmp_path, {"image_processor_type": name}))
        assert preprocessing.crop is (name not in ("SiglipImageProcessor", "BlipImageProcessor"))
        assert (preprocessing.mean == (0.5, 0.5, 0.5)) is (name == "SiglipImageProcessor")
    # The size is not left out, and the class still crops to its own.
    preprocessing = ImagePreprocessing.from_pretrained(write(tmp_path, {"size": {"shortest_edge": 336}}))
    assert (preprocessing.size, preprocessing.resized) == (224, 336)
    assert_pixels_equal_the_published_class(tmp_path, "CLIPImageProcessor")


# Legal values of every setting of the published classes; those that are not implemented must be refused by name.
VALUES = {
    **{
        key: [True, False, None]
        for key in (
            *("do_convert_rgb", "do_resize", "do_rescale", "do_normalize", "do_pad", "do_center_crop"),
            *("default_to_square", "use_square_size", "disable_grouping"),
        )
    },
    "size": [
        *(224, [224, 224], {"shortest_edge": 40}, {"height": 24, "width": 24}, {"height": 20, "width": 24}, None),
        *({"shortest_edge": 24, "longest_edge": 30}, {"max_height": 24, "max_width": 24}, {"longest_edge": 24}),
    ],
    "crop_size": [30, [30, 30], SQUARE, {"height": 20, "width": 24}, {"shortest_edge": 24}, None],
    "pad_size": [SQUARE, {"height": 300, "width": 300}, 224, None],
    "resample": [*range(6), None],
    "rescale_factor": [1 / 255, 0.003921568627, 1.0, 1 / 127.5, None],
    "image_mean": [0.3, [0.1, 0.2, 0.3], None],
    "image_std": [0.3, [0.1, 0.2, 0.3], None],
    "data_format": ["channels_first", "channels_last"],
    "input_data_format": ["channels_first", "channels_last"],
    "device": ["cpu"],
    "return_tensors": ["np"],
    "image_seq_length": [576],
}


@pytest.mark.parametrize(
    ("name", "base"),
    [
        *((name, {}) for name in PUBLISHED),
        *((name, {"do_pad": True}) for name in ("CLIPImageProcessor", "LlavaImageProcessor")),
        ("CLIPImageProcessor", {"size": 24, "do_center_crop": True}),
    ],
)
def test_every_setting_has_its_effect_or_is_refused_by_name(name, base, tmp_path):
    assert VALUES.keys() >= PUBLISHED[name].valid_kwargs.__annotations__.keys()
    photos, equal = images()[:2], 0
    for key, values in VALUES.items():
        for value in values:
            settings = {"image_processor_type": name} | base | {key: value}
            try:
                preprocessing = ImagePreprocessing.from_pretrained(write(tmp_path, settings))
            except CourseError as error:
                needed = {"do_center_crop": "crop_size"}.get(key, key)
                assert any(each in str(error) for each in (key, needed, *base)), (settings, str(error))
                continue
            if name.startswith("Llava") and base and value == 0.3:
                continue  # the published class fails with one mean for all channels
            expected = published_pixels(name, tmp_path, photos)
            torch.testing.assert_close(preprocessing(photos), expected, atol=1e-5, rtol=0, msg=str(settings))
            equal += 1
    assert equal > 30


@pytest.mark.parametrize("suffix", ["", "Fast", "Pil"])
def test_the_class_is_found_under_every_name(suffix, tmp_path):
    siglip = ImagePreprocessing(crop=False, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert (
        ImagePreprocessing.from_pretrained(write(tmp_path, {"image_processor_type": f"SiglipImageProcessor{suffix}"}))
        == siglip
    )
    assert ImagePreprocessing.from_pretrained(write(tmp_path, {})) == ImagePreprocessing()
    write(tmp_path, {"model_type": "siglip"}, "config.json")
    assert ImagePreprocessing.from_pretrained(write(tmp_path, {})) == siglip
    legacy = write(tmp_path, {"feature_extractor_type": "CLIPFeatureExtractor"})
    assert ImagePreprocessing.from_pretrained(legacy) == ImagePreprocessing()
    for settings in ({"image_processor_type": "ViTImageProcessor"}, {"image_processor_type": 7}):
        with pytest.raises(CourseError, match=r"belongs to the class .*; supported are CLIPImageProcessor"):
            ImagePreprocessing.from_pretrained(write(tmp_path, settings))
    write(tmp_path, {"model_type": "vit"}, "config.json")
    with pytest.raises(CourseError, match="belongs to the class vitImageProcessor"):
        ImagePreprocessing.from_pretrained(write(tmp_path, {}))
    assert CLASS_DEFAULTS.keys() == PUBLISHED.keys()


def test_the_newer_file_of_a_whole_processor_is_read(tmp_path):
    """As the published class does, which prefers it to the older file."""
    nested = {"image_processor_type": "SiglipImageProcessor", "size": SQUARE}
    write(tmp_path, {"processor_class": "LlavaProcessor", "image_processor": nested}, "processor_config.json")
    assert_pixels_equal_the_published_class(tmp_path, "SiglipImageProcessor")
    write(tmp_path, {"image_processor_type": "SiglipImageProcessor", "size": {"height": 40, "width": 40}})
    assert ImagePreprocessing.from_pretrained(tmp_path).size == 24
    assert_pixels_equal_the_published_class(tmp_path, "SiglipImageProcessor")
    # Without a part for images it states nothing about them.
    write(tmp_path, {"processor_class": "LlavaProcessor", "patch_size": 14}, "processor_config.json")
    assert ImagePreprocessing.from_pretrained(tmp_path).size == 40
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(CourseError, match=r"preprocessor_config.json does not exist; .* or in processor_config.json"):
        ImagePreprocessing.from_pretrained(tmp_path)
    write(tmp_path, {"image_processor": "CLIP"}, "processor_config.json")
    with pytest.raises(CourseError, match="has 'CLIP' as image_processor"):
        ImagePreprocessing.from_pretrained(tmp_path)


WRONG = [None, True, 3, -1, 0, 1.5, "24", "", [], [24], [1, 2, 3, 4], [None, 24], {}, {"height": 24}, {"height": "24"}]
WRONG += [
    {"shortest_edge": 0},
    {"height": 24, "width": True},
    {"": 1},
    {"a": {"b": []}},
    [[]],
    1e400,
    10**400,
    -(10**9),
]


@pytest.mark.parametrize("key", [*VALUES, "image_processor_type", "feature_extractor_type"])
def test_values_of_wrong_types_and_ranges_give_one_error(key, tmp_path):
    for value in WRONG:
        write(tmp_path, {"crop_size": 24, key: value})
        try:
            preprocessing = ImagePreprocessing.from_pretrained(tmp_path)
        except CourseError as error:
            assert "preprocessor_config.json" in str(error) and len(str(error)) < 1000
        else:
            pixels = preprocessing(images()[:2])
            assert pixels.shape[2] == pixels.shape[3] and pixels.isfinite().all(), (key, value)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "null", "[" * 100_000, '{"a":' * 100_000, "\ufeff{}"])
@pytest.mark.parametrize("file", ["preprocessor_config.json", "processor_config.json"])
def test_a_file_that_is_no_json_object_is_named(file, content, tmp_path):
    (tmp_path / file).write_text(content, encoding="utf-8")
    with pytest.raises(CourseError, match=file):
        ImagePreprocessing.from_pretrained(tmp_path)


def test_transparent_parts_are_white(tmp_path):
    clear = Image.new("RGBA", (30, 20), (10, 20, 30, 0))
    palette = Image.new("P", (30, 20), 0)
    palette.putpalette([10, 20, 30])
    palette.info["transparency"] = 0
    for image in (clear, palette):
        assert (ImagePreprocessing(24).square(image) == 255).all()
