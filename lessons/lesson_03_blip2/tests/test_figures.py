"""Every figure is drawn from the arms' measurements, for one seed and several, with all arms and with the fewest."""

from pathlib import Path

import pytest

from lessons.lesson_03_blip2.experiment import figures
from shared.course.lesson import Run


def measurements(offset):
    curve = ([10, 20], [2.0 - offset, 1.0])
    accuracies = {"answers": 0.5 + offset, "captions": 0.4, "seen_captions": 0.6}
    pairs = ([50, 200], [0.3 + offset, 0.5])
    return accuracies | {"answers_blind": 0.3, "loss_curve": curve, "answers_curve": pairs}


EVERY_ARM = [*figures.CONNECTOR_ARMS.values(), figures.UPPER_BOUND, "pairs", "pairs, stage 2 alone"]


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("arms", [["both stages"], EVERY_ARM])
def test_every_figure_is_drawn_and_has_a_caption(seeds, arms):
    measured = {seed: {arm: measurements(seed / 100) for arm in arms} for seed in seeds}
    for seed in seeds:
        measured[seed]["both stages"] |= {
            "query_maps": [[[1 / 16] * 16] * 3] * 2,
            "captions_written": ["a purple triangle and a red star", "nonsense"],
            "seen_captions_written": ["a red star", "a red star"],
        }
    drawn = figures.draw(Run("cpu", "cpu", "toybox", seeds, Path("nowhere"), measured))
    without_pairs = set() if "pairs" in arms else {"pairs"}
    assert drawn.keys() == figures.CAPTIONS.keys() - without_pairs
