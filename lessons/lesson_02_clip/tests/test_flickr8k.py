"""The GPU's arm on a few images: that it runs, crops and standardizes."""

import numpy as np
import torch

from data.datasets.captioned_folder import CaptionedImages
from lessons.lesson_02_clip.experiment import flickr8k
from shared.course.context import RunContext


def few_images():
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    captions = tuple((f"a dog number {number}", f"the {number}th dog runs") for number in range(12))
    return CaptionedImages("few", images[:8], captions[:8], images[8:], captions[8:])


def test_the_arm_runs_and_measures(monkeypatch, tmp_path):
    monkeypatch.setattr(flickr8k, "flickr8k", lambda size: few_images())
    measured = flickr8k.train_flickr8k(
        RunContext(seed=0, data="flickr8k", device="cpu", folder=tmp_path / "arm"),
        steps=2,
        batch_size=4,
        image_size=16,
        precision="float32",
        compiled=False,
        architecture={"patch_size": 8, "width": 32, "depth": 1},
    )
    assert measured["chance"] == 0.25
    assert all(0.0 <= measured[f"{way}_at_{k}"] <= 1.0 for way in ("image_to_text", "text_to_image") for k in (1, 5))
    assert measured["image_to_text_at_1"] <= measured["image_to_text_at_5"] == 1.0


def test_crops_are_parts_of_the_image_and_drawn_by_the_generator():
    ramp = torch.linspace(0, 1, 64).expand(5, 3, 64, 64)
    crops = flickr8k.random_crop(ramp, torch.Generator().manual_seed(0))
    assert torch.equal(crops, flickr8k.random_crop(ramp, torch.Generator().manual_seed(0)))
    width = crops[:, 0, 32, 60] - crops[:, 0, 32, 3]
    assert ((width > 0.5) & (width < 0.95)).all() and width.std() > 0.01
    assert crops.min() >= 0 and crops.max() <= 1


def test_pixels_are_standardized_as_published():
    pixels = torch.tensor([[0, 255], [128, 64]], dtype=torch.uint8).expand(1, 3, 2, 2)
    standardized = flickr8k.standardize(pixels)
    expected = torch.tensor([-0.48145466 / 0.26862954, (1 - 0.48145466) / 0.26862954])
    torch.testing.assert_close(standardized[0, 0, 0], expected)
