"""Every figure is drawn from the arms' measurements, for one seed and several, with all arms and the fewest."""

from pathlib import Path

import pytest

from lessons.lesson_08_onevision.experiment import figures
from lessons.lesson_08_onevision.experiment.lesson import LESSON
from shared.course.lesson import Run


def measurements(offset):
    numbers = {f"{kind}_all": 0.6 + offset for kind in ("image", "images", "video")}
    return numbers | {"video_direction": 0.7 - offset, "mix_loss_curve": [[10, 20], [2.0 - offset, 1.0]]}


def run_of(seeds, arms):
    measured = {seed: {arm: measurements(seed / 100) for arm in arms} for seed in seeds}
    return Run("cpu", "cpu", "toybox", seeds, Path("nowhere"), measured)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_every_figure_is_drawn_and_has_a_caption(seeds):
    every = [arm.name for arm in LESSON.arms]
    fewest = [arm.name for arm in LESSON.arms if "cpu" in arm.presets]
    for arms in (every, fewest):
        assert LESSON.figures(run_of(seeds, arms)).keys() == LESSON.captions.keys()


def test_the_story_is_drawn_as_each_type_of_input():
    captions = [axis.get_xlabel() for axis in figures.story_inputs().axes]
    assert [caption for caption in captions if caption] == [
        "image\n65 tokens",
        "images\n74 tokens",
        "video\n73 tokens",
    ]
