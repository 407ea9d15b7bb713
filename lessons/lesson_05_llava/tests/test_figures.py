"""Every figure is drawn from the arms' measurements, for one seed and several, with all arms and the fewest."""

from pathlib import Path

import pytest

from data.toybox.questions import QUESTION_TYPES
from lessons.lesson_05_llava.experiment import figures
from lessons.lesson_05_llava.experiment.lesson import LESSON, draw
from shared.course.lesson import Run


def measurements(offset):
    curve = [[10, 20], [2.0 - offset, 1.0]]
    wrong = [[number, "what color is the striped object?", "red", "blue"] for number in (1, 2, 5)]
    numbers = {f"answers_{question_type}": 0.5 + offset for question_type in QUESTION_TYPES}
    numbers |= {
        "objects": [1, 3],
        "answers": 0.6 + offset,
        "answers_wrong": wrong,
        "loss_curve": curve,
        "answers_curve": curve,
        "bits_per_byte_curve": curve,
    }
    numbers |= {f"{name}_{time}": 0.5 for name in ("patient", "right") for time in ("before", "after")}
    numbers |= {f"{method}_sentences": 0.5 + offset for method in ("full", "lora", "dora", "qlora")}
    numbers["words_before"] = 0.6
    return numbers | dict.fromkeys(("weight_bytes", "gradient_bytes", "moment_bytes"), 1000.0)


def run_of(seeds, arms):
    measured = {seed: {arm: measurements(seed / 100) for arm in arms} for seed in seeds}
    return Run("cpu", "cpu", "toybox", seeds, Path("nowhere"), measured)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_every_figure_is_drawn_and_has_a_caption(seeds):
    every = [arm.name for arm in LESSON.arms]
    assert draw(run_of(seeds, every)).keys() == LESSON.captions.keys()
    fewest = [arm.name for arm in LESSON.arms if "cpu" in arm.presets]
    assert draw(run_of(seeds, fewest)).keys() == {"kinds", "wrong", "loss"}


@pytest.mark.parametrize("part", LESSON.parts)
def test_each_part_alone_has_figures(part):
    assert draw(run_of((0,), [arm.name for arm in LESSON.arms_of("full", "toybox", part)]))


def test_without_a_wrong_answer_correct_ones_are_drawn():
    run = run_of((0,), ["llava", "blind"])
    run.arms[0]["llava"]["answers_wrong"] = []
    assert figures.wrong_answers(run) is not None


def test_questions_are_wrapped():
    lines = figures.wrapped("are the yellow object and the small plain object of the same shape?").split("\n")
    assert len(lines) == 3 and max(map(len, lines)) <= 26


def test_only_the_question_types_of_the_run_are_drawn():
    run = run_of((0,), ["llava", "blind"])
    run.arms[0]["llava"]["objects"] = [1, 1]
    assert "relation" not in figures.setting_of(run).question_types and figures.accuracy_by_type(run) is not None
