"""Every figure is drawn from the arms' measurements, for one seed and several, with all arms and the fewest."""

from pathlib import Path

import pytest

from lessons.lesson_10_internvl.experiment.arms import TEST_STEPS, TESTED
from lessons.lesson_10_internvl.experiment.lesson import LESSON
from lessons.lesson_10_internvl.experiment.routing import FRACTIONS
from shared.course.lesson import Run


def measurements(offset):
    numbers = dict.fromkeys(("answers", "few_shot", "before_few_shot"), 0.5 + offset)
    numbers |= {f"{images}_chosen": 0.6 - offset for images in TESTED}
    numbers |= {f"{images}x{step:g}_all": 0.4 + offset for images in TESTED for step in TEST_STEPS}
    numbers |= {f"{name}_{round(100 * f)}": 0.7 - offset for name in ("routed", "random") for f in FRACTIONS}
    numbers |= {f"{name}_per_second": 3.0 + offset for name in ("one_thread", "two_threads", "two_processes")}
    return numbers | {"loss_curve": [[10, 20], [2.0 - offset, 1.0]]}


def run_of(seeds, arms):
    measured = {seed: {arm: measurements(seed / 100) for arm in arms} for seed in seeds}
    return Run("cpu", "cpu", "toybox", seeds, Path("nowhere"), measured)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_every_figure_is_drawn_and_has_a_caption(seeds):
    every = [arm.name for arm in LESSON.arms]
    assert LESSON.figures(run_of(seeds, every)).keys() == LESSON.captions.keys()
    fewest = [arm.name for arm in LESSON.arms if "cpu" in arm.presets]
    assert LESSON.figures(run_of(seeds, fewest)).keys() == LESSON.captions.keys() - {"router", "deployment"}
    assert LESSON.figures(run_of(seeds, ["exact"])) == {}
