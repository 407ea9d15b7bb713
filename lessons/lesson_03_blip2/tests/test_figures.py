"""Every figure is drawn from what the arms measure, for one seed and for several, with every arm and with the fewest."""

from pathlib import Path

import pytest

from lessons.lesson_03_blip2.experiment import figures
from shared.course.lesson import Run


def measurements(offset):
    curve = ([10, 20], [2.0 - offset, 1.0])
    right = {"answers": 0.5 + offset, "captions": 0.4, "seen_captions": 0.6}
    return right | {"answers_blind": 0.3, "loss_curve": curve}


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("arms", [["both stages"], [*figures.BRIDGES.values(), "told in words"]])
def test_every_figure_is_drawn_and_has_a_caption(seeds, arms):
    run = Run(
        "cpu", "cpu", "toybox", seeds, Path("nowhere"), {s: {arm: measurements(s / 100) for arm in arms} for s in seeds}
    )
    for seed in seeds:
        run.arms[seed]["both stages"] |= {
            "query_maps": [[[1 / 16] * 16] * 3] * 2,
            "captions_written": ["a purple triangle and a red star", "nonsense"],
            "seen_captions_written": ["a red star", "a red star"],
        }
    drawn = figures.draw(run)
    assert drawn.keys() == figures.CAPTIONS.keys()
