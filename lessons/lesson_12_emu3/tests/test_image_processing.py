"""The image processor and the prompts: the same values as the published classes, or a setting that is refused."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Emu3ImageProcessor, Emu3Processor

from lessons.lesson_12_emu3.model.image_processing import SETTINGS, Emu3ImageProcessing
from lessons.lesson_12_emu3.model.prompt import generated_size, generation_prompt, image_text
from lessons.lesson_12_emu3.model.vocabulary import MARKERS, PLACEHOLDER
from shared.errors import CourseError

FILE = "preprocessor_config.json"
ODD = {"image_processor_type": "Emu3ImageProcessor", "min_pixels": 900, "max_pixels": 3000, "spatial_factor": 5}
SIZES = [(41, 29), (29, 41), (190, 1), (7, 5), (123, 77)]


def noise(width, height, mode="RGB"):
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels if channels > 1 else pixels[:, :, 0], mode)


def write(folder, settings):
    (folder / FILE).write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("changes", [{}, {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 1.0, 0.2], "resample": 2}])
def test_the_same_values_for_images_of_any_size(changes, tmp_path):
    write(tmp_path, ODD | changes)
    images = [noise(*size) for size in SIZES]
    expected = Emu3ImageProcessor.from_pretrained(tmp_path)(images, return_tensors="pt")
    batch = Emu3ImageProcessing.from_pretrained(tmp_path)(images)
    assert torch.equal(batch.images, expected["pixel_values"]) and batch.images.dtype == torch.float32
    assert torch.equal(batch.sizes, torch.as_tensor(expected["image_sizes"]))


def test_a_large_image_with_the_published_settings(tmp_path):
    write(tmp_path, {"image_processor_type": "Emu3ImageProcessor"})
    images = [noise(300, 200), noise(20, 30, "L")]
    expected = Emu3ImageProcessor.from_pretrained(tmp_path)(images, return_tensors="pt")
    batch = Emu3ImageProcessing.from_pretrained(tmp_path)(images)
    assert torch.equal(batch.images, expected["pixel_values"])


def test_decoded_images_are_turned_back_into_pixels(tmp_path):
    write(tmp_path, ODD)
    decoded = 2 * torch.randn(2, 3, 6, 4)
    expected = Emu3ImageProcessor.from_pretrained(tmp_path).postprocess(decoded)["pixel_values"]
    actual = Emu3ImageProcessing.from_pretrained(tmp_path).to_images(decoded)
    for one, other in zip(actual, expected, strict=True):
        # Both cut the fraction off, so that a last bit may decide.
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max() <= 1
        assert (np.asarray(one) == np.asarray(other)).mean() > 0.9


def test_settings_are_written_as_they_are_read(tmp_path):
    processing = Emu3ImageProcessing.from_pretrained(write(tmp_path, ODD))
    processing.save_pretrained(tmp_path)
    assert Emu3ImageProcessing.from_pretrained(tmp_path) == processing
    images = [noise(50, 33)]
    expected = Emu3ImageProcessor.from_pretrained(tmp_path)(images, return_tensors="pt")["pixel_values"]
    assert torch.equal(processing(images).images, expected)


def test_every_setting_has_a_row():
    own = {row.published for row in SETTINGS}
    assert set(vars(Emu3ImageProcessor())) - {"image_processor_type", "image_seq_length"} <= own


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_resize": False}, "do_resize is False"),
        ({"do_pad": False}, "do_pad is False"),
        ({"do_normalize": False}, "do_normalize is False"),
        ({"do_rescale": False}, "do_rescale is False"),
        ({"resample": 9}, "resample is 9"),
        ({"image_std": [1, 1, 0]}, "image_std is"),
        ({"image_mean": 0.5}, "image_mean is 0.5"),
        ({"min_pixels": 5000}, "at least 5000 and at most 3000 pixels"),
        ({"image_processor_type": "CLIPImageProcessor"}, "CLIPImageProcessor; expected Emu3ImageProcessor"),
    ],
)
def test_unsupported_settings_are_refused_by_name(change, message, tmp_path):
    with pytest.raises(CourseError, match=message):
        Emu3ImageProcessing.from_pretrained(write(tmp_path, ODD | change))


def test_no_image():
    with pytest.raises(ValueError, match="no image was given"):
        Emu3ImageProcessing()([])


# ── Prompts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def published_processor():
    """Return the attributes that the published methods read; the whole class needs a tokenizer's files."""
    names = {"image_token": PLACEHOLDER, "image_start_token": MARKERS["start"], "image_end_token": MARKERS["end"]}
    names |= {"fake_token_around_image": MARKERS["tokens"], "eof_token": MARKERS["end_of_frame"]}
    return SimpleNamespace(**names, downsample_ratio=8)


@pytest.mark.parametrize("ratio", ["1:1", "16:9", "9:16", "3:2", "21:9"])
@pytest.mark.parametrize("area", [518400, 40_000, 100_000])
def test_the_size_of_a_generated_image(ratio, area):
    expected = Emu3Processor.calculate_generate_size(published_processor(), ratio, area, 8)
    assert generated_size(ratio, area) == expected


def test_published_sizes_and_prompts():
    assert generated_size("1:1") == (90, 90)
    assert generation_prompt("a fox", 3, 4) == "<|extra_203|>a fox<|image start|>3*4<|image token|>"
    sizes = {"image_sizes": [(24, 32), (16, 80)]}
    for index, (rows, columns) in enumerate([(3, 4), (2, 10)]):
        expected = Emu3Processor.replace_image_token(published_processor(), sizes, index)
        assert image_text(rows, columns) == expected


@pytest.mark.parametrize("ratio", ["", "1", "1:0", "1:2:3", "a:b", "-1:2", "1.5:1"])
def test_wrong_ratios(ratio):
    with pytest.raises(ValueError, match="expected width and height as whole numbers"):
        generated_size(ratio)
    with pytest.raises(ValueError, match="has no code per side"):
        generated_size("100:1", 100)
