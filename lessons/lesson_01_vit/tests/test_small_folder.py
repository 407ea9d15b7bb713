"""Every arm that takes the learner's images trains on a folder of twenty, fewer than any batch."""

import numpy as np
import pytest
from PIL import Image

from lessons.lesson_01_vit.experiment.arms import ARMS
from shared.course.context import RunContext
from shared.course.job_process import import_function

NAMES = ("vit", "order", "baselines", "few labels, masked 75 %", "distilled, unlabeled images", "large")
"""One arm per way to make batches."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twenty-images")
    generator = np.random.default_rng(0)
    for name, brightness in (("dark", 60), ("light", 200)):
        (folder / name).mkdir()
        for number in range(10):
            pixels = generator.integers(brightness - 50, brightness + 50, size=(32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_an_arm_trains_on_twenty_images(name, folder, tmp_path):
    arm = next(arm for arm in ARMS if arm.name == name)
    context = RunContext(0, f"folder:{folder}", "cpu", tmp_path)
    measured = import_function(arm.function)(context, **arm.presets["smoke"])
    assert all(0 <= measured[name] <= 1 for name in ("accuracy", "nearest_neighbor") if name in measured)
