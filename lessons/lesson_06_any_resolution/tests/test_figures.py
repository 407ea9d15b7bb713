"""Every figure is drawn from the arms' measurements, for one seed and several, with all arms and the fewest."""

from pathlib import Path

import pytest

from lessons.lesson_06_any_resolution.experiment import figures
from lessons.lesson_06_any_resolution.experiment.arms import BUDGETS
from lessons.lesson_06_any_resolution.experiment.lesson import LESSON
from shared.course.lesson import Run


def measurements(offset):
    kinds = ("receipt", "chart", "menu", "tall menu", "wide menu")
    numbers = {f"{kind}_{budget}_digits": 0.5 + offset for kind in kinds for budget in BUDGETS}
    numbers["receipt_128_by_aspect"] = [[2.0 + offset, 3.0, 5.0], [0.9, 0.8, 0.7 + offset]]
    numbers["loss_curve"] = [[10, 20], [2.0 - offset, 1.0]]
    return numbers | {"lengths": [100, 30, 250, 16, 60], "recipe": {"budgets": list(BUDGETS)}}


def run_of(seeds, arms):
    measured = {seed: {arm: measurements(seed / 100) for arm in arms} for seed in seeds}
    return Run("cpu", "cpu", "toybox", seeds, Path("nowhere"), measured)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_every_figure_is_drawn_and_has_a_caption(seeds):
    every = [arm.name for arm in LESSON.arms]
    assert LESSON.figures(run_of(seeds, every)).keys() == LESSON.captions.keys()
    fewest = [arm.name for arm in LESSON.arms if "cpu" in arm.presets]
    assert LESSON.figures(run_of(seeds, fewest)).keys() == {"aspect", "resized", "packing", "loss"}


def test_packed_rows_are_fewer_than_padded_ones():
    figure = figures.packed_rows([100, 30, 250, 16, 60])
    assert [axis.get_title() for axis in figure.axes] == ["padded: 5 rows", "packed: 2 rows"]
