"""Figures of lesson 5's first part, drawn from the measurements of a run."""

import textwrap
from statistics import fmean

from data.toybox.conversations import SceneSetting, scene_setting
from data.toybox.heldout import TEST_SEED
from data.toybox.image import render_images
from data.toybox.tensors import IMAGE_SIZE
from lessons.lesson_05_llava.experiment.data import question_of_number
from shared import plots
from shared.course.lesson import Run

CAPTIONS = {
    "kinds": "Accuracy of LLaVA on unseen combinations by question type (one dot per seed). Dashed: blind baseline.",
    "wrong": "Wrong answers of LLaVA about scenes with unseen combinations, with the correct answer in brackets.",
    "stages": "Accuracy on questions about unseen combinations by steps of stage 2, with and without stage 1.",
    "loss": "Loss of stage 2 by arm: the cross-entropy of the answers.",
}
LOSS_ARMS = {"both stages": "llava", "stage 2 alone": "stage 2 alone", "blind": "blind"}


def draw(run: Run) -> dict[str, plots.Figure]:
    """Draw every figure that the run's arms allow, the first one first on the page."""
    arms = arm_names(run)
    drawn = {}
    if {"llava", "blind"} <= arms:
        drawn |= {"kinds": accuracy_by_type(run), "wrong": wrong_answers(run), "loss": loss_curves(run)}
    if "lengths" in arms:
        drawn["stages"] = accuracy_by_length(run)
    return {name: drawn[name] for name in CAPTIONS if name in drawn}


def arm_names(run: Run) -> set[str]:
    """Return the names of the run's arms."""
    return set(run.arms[run.seeds[0]])


def setting_of(run: Run) -> SceneSetting:
    """Return the scenes and question types that the run used."""
    return scene_setting(run.arms[run.seeds[0]]["llava"]["objects"])


def accuracy_by_type(run: Run) -> plots.Figure:
    """Draw the accuracy of each question type."""
    return plots.bars_with_intervals(
        {name: run.measurements("llava", f"answers_{name}") for name in setting_of(run).question_types}
        | {"all types": run.measurements("llava", "answers")},
        x_label="accuracy on unseen combinations",
        baselines={"blind, all types": fmean(run.measurements("blind", "answers"))},
        highlight="all types",
        percent=True,
    )


def wrong_answers(run: Run) -> plots.Figure:
    """Draw the first wrong answers of the first seed under their images."""
    setting = setting_of(run)
    examples = run.arms[run.seeds[0]]["llava"]["answers_wrong"][:8]
    if not examples:  # then some correct ones
        questions = [question_of_number("test", TEST_SEED, number, setting)[1] for number in range(4)]
        examples = [[number, each.text, each.answer, each.answer] for number, each in enumerate(questions)]
    scenes = [question_of_number("test", TEST_SEED, number, setting)[0] for number, *_ in examples]
    captions = [f"{wrapped(question)}\n{answer or '—'} ({correct})" for _, question, answer, correct in examples]
    marks = [answer == correct for _, _, answer, correct in examples]
    return plots.image_grid(list(render_images(scenes, IMAGE_SIZE)), captions, correct=marks, columns=4)


def wrapped(question: str, width: int = 26) -> str:
    """Break a question into lines."""
    return textwrap.fill(question, width)


def accuracy_by_length(run: Run) -> plots.Figure:
    """Draw the gain from stage 1 against the steps of stage 2."""
    return plots.learning_curves(
        {
            "with stage 1": run.measurements("lengths", "answers_curve"),
            "stage 2 alone": run.measurements("lengths, stage 2 alone", "answers_curve"),
        },
        x_label="steps of stage 2",
        y_label="accuracy",
        percent=True,
    )


def loss_curves(run: Run) -> plots.Figure:
    """Draw the loss of stage 2, with an image and without."""
    return plots.learning_curves(
        {name: run.measurements(arm, "loss_curve") for name, arm in LOSS_ARMS.items() if arm in arm_names(run)},
        x_label="step of stage 2",
        y_label="cross-entropy (nats per token)",
    )
