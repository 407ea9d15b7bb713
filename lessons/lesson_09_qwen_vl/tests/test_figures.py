"""Every figure is drawn from the arms' measurements, for one seed and several, with all arms and the fewest."""

from pathlib import Path

import numpy as np
import pytest

from lessons.lesson_09_qwen_vl.experiment import figures
from lessons.lesson_09_qwen_vl.experiment.arms import LENGTHS, RATES, SECONDS_FRAMES
from lessons.lesson_09_qwen_vl.experiment.lesson import LESSON
from shared.course.lesson import Run


def measurements(offset):
    numbers = {f"{frames}x1000_all": 0.5 + offset for frames in LENGTHS}
    numbers |= {f"{SECONDS_FRAMES}x{gap}_second": 0.6 - offset for gap in RATES}
    numbers |= {f"{prefix}{way}_1": 0.5 + offset for prefix in ("", "steady ") for way in ("dynamic", "uniform")}
    numbers["loss_curve"] = [[10, 20], [2.0 - offset, 1.0]]
    numbers["texts"] = ['{"bbox_2d": [1, 2, 30, 32], "label": "red circle"}', "no box"]
    return numbers | {"mrope_ids": [[1, 2, 4], [5, 5, 5]], "one_axis_ids": [[1, 2, 4], [17, 33, 65]]}


def run_of(seeds, arms):
    measured = {seed: {arm: measurements(seed / 100) for arm in arms} for seed in seeds}
    return Run("cpu", "cpu", "toybox", seeds, Path("nowhere"), measured)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_every_figure_is_drawn_and_has_a_caption(seeds):
    every = [arm.name for arm in LESSON.arms]
    assert LESSON.figures(run_of(seeds, every)).keys() == LESSON.captions.keys()
    fewest = [arm.name for arm in LESSON.arms if "cpu" in arm.presets]
    assert LESSON.figures(run_of(seeds, fewest)).keys() == {"lengths", "ids", "recall", "boxes", "loss"}


def test_an_outline_stays_within_the_image():
    image = np.full((128, 128, 3), 255, dtype=np.uint8)
    figures.outline(image, (2, 3, 32, 32), 0)
    assert (image[12, 8:] == 0).all() and (image[127, 8:] == 0).all() and (image[12:, 127] == 0).all()
    assert (image[:12] == 255).all() and (image[13:127, 9:127] == 255).all()
