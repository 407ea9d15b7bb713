"""Every figure is drawn from what the arms measure, for one seed and for several, with every arm and with the fewest."""

from pathlib import Path

import pytest

from data.toybox.questions import QUESTION_TYPES
from lessons.lesson_05_llava.experiment import figures
from lessons.lesson_05_llava.experiment import lesson as experiment
from shared.course.lesson import Run


def measurements(offset):
    curve = [[10, 20], [2.0 - offset, 1.0]]
    wrong = [[number, "what colour is the striped thing?", "red", "blue"] for number in (1, 2, 5)]
    numbers = {f"answers_{kind}": 0.5 + offset for kind in QUESTION_TYPES}
    numbers |= {
        "objects": [1, 3],
        "answers": 0.6 + offset,
        "answers_wrong": wrong,
        "loss_curve": curve,
        "answers_curve": curve,
        "bits_per_byte_curve": curve,
    }
    numbers |= {f"{name}_{when}": 0.5 for name in ("patient", "right") for when in ("before", "after")}
    return numbers | dict.fromkeys(("weight_bytes", "gradient_bytes", "moment_bytes"), 1000.0)


def a_run(seeds, arms):
    return Run(
        "cpu", "cpu", "toybox", seeds, Path("nowhere"), {s: {arm: measurements(s / 100) for arm in arms} for s in seeds}
    )


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_every_figure_is_drawn_and_has_a_caption(seeds):
    every = [arm.name for arm in experiment.ARMS]
    assert figures.draw(a_run(seeds, every)).keys() == figures.CAPTIONS.keys()
    fewest = [arm.name for arm in experiment.ARMS if "cpu" in arm.presets]
    assert figures.draw(a_run(seeds, fewest)).keys() == {"kinds", "wrong", "loss"}


def test_without_a_wrong_answer_right_ones_are_shown():
    run = a_run((0,), ["llava", "blind"])
    run.arms[0]["llava"]["answers_wrong"] = []
    assert figures.wrong(run) is not None


def test_questions_are_broken_into_lines():
    lines = figures.broken("are the yellow thing and the small plain thing of the same shape?").split("\n")
    assert len(lines) == 3 and max(map(len, lines)) <= 27


def test_only_what_was_asked_is_drawn():
    run = a_run((0,), ["llava", "blind"])
    run.arms[0]["llava"]["objects"] = [1, 1]
    assert "relation" not in figures.world(run).kinds and figures.kinds(run) is not None
