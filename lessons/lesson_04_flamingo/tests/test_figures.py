"""Every figure is drawn from what the arms measure, for one seed and for several, with every arm and with the fewest."""

from pathlib import Path

import pytest

from lessons.lesson_04_flamingo import figures
from shared.course.lesson import Run


def measurements(offset):
    accuracies = {
        f"{kind}_{shots}": 0.1 * shots**0.5 + offset for kind in ("seen", "held_out") for shots in figures.SHOTS
    }
    curves = {f"attention_{layer}_curve": ([0, 10], [0.0, 0.1 + offset]) for layer in range(2)}
    return accuracies | curves | {"text_bits_before": 2.0, "text_bits_after": 2.1 + offset}


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("arms", [["flamingo"], list(figures.ARMS.values())])
def test_every_figure_is_drawn_and_has_a_caption(seeds, arms):
    measured = {seed: {arm: measurements(seed / 100) for arm in arms} for seed in seeds}
    drawn = figures.draw(Run("cpu", "cpu", "toybox", seeds, Path("nowhere"), measured))
    assert drawn.keys() == figures.CAPTIONS.keys()
