"""The figures of lesson 3, drawn from the measurements of a run."""

from statistics import fmean

import torch

from data.toybox.heldout import TEST_SEED, sample_scenes
from data.toybox.image import render_images
from data.toybox.language import is_true
from data.toybox.tensors import IMAGE_SIZE
from lessons.lesson_03_blip2.experiment.evaluate import OBJECTS
from lessons.lesson_03_blip2.model import TASKS, task_mask_matrix
from shared import plots
from shared.course.lesson import Run

CAPTIONS = {
    "queries": "Attention of the queries to the image after both stages, in the last block with cross-attention, on "
    "scenes with unseen combinations: the scene, then one map per query.",
    "answers": "Accuracy on questions about unseen combinations, by connector, at equal steps of stage 2 (one dot per "
    "seed).",
    "composition": "Fraction of correct captions of new scenes with seen and with unseen combinations, by connector "
    "(one dot per seed).",
    "captions": "Captions generated after both stages: first row, new scenes with seen combinations; second row, "
    "unseen combinations.",
    "second_stage": "Loss of stage 2: the frozen language model's cross-entropy on captions and answers.",
    "pairs": "Accuracy on questions about unseen combinations by the number of pairs in stage 2, with and without "
    "stage 1, at equal steps (horizontal axis: logarithmic).",
    "masks": "The three masks of the Q-Former, with four queries and four text tokens: token i (row) attends to "
    "token j (column).",
}
CONNECTOR_ARMS = {
    "both stages": "both stages",
    "stage 2 alone": "stage 2 alone",
    "all patches, linear": "all patches",
    "mean of the patches": "mean pooling",
}
"""Label in the figures → arm."""
UPPER_BOUND = "text-only upper bound"


def draw(run: Run) -> dict[str, plots.Figure]:
    """Return every figure; the first one represents the lesson."""
    drawn = {
        "queries": queries(run),
        "answers": answers(run),
        "composition": composition(run),
        "captions": captions(run),
        "second_stage": second_stage(run),
    }
    if "pairs" in run.arms[run.seeds[0]]:
        drawn["pairs"] = pairs(run)
    return drawn | {"masks": masks()}


def trained_connectors(run: Run) -> dict[str, str]:
    """Return label and arm of the connectors in this run."""
    return {label: arm for label, arm in CONNECTOR_ARMS.items() if arm in run.arms[run.seeds[0]]}


def queries(run: Run) -> plots.Figure:
    """Draw the attention maps of every query over the first test scenes."""
    maps = torch.tensor(run.arms[run.seeds[0]]["both stages"]["query_maps"])
    side = round(maps.shape[2] ** 0.5)
    scenes = sample_scenes("test", TEST_SEED, len(maps), OBJECTS)
    return plots.attention_overlay(
        list(render_images(scenes, IMAGE_SIZE)),
        maps.unflatten(2, (side, side)),
        captions=[f"query {number + 1}" for number in range(maps.shape[1])],
    )


def answers(run: Run) -> plots.Figure:
    """Draw the answer accuracy of every connector, with the blind baseline and the text-only upper bound."""
    return plots.bars_with_intervals(
        {label: run.measurements(arm, "answers") for label, arm in trained_connectors(run).items()},
        x_label="correct answers about unseen combinations",
        baselines={"blind": fmean(run.measurements("both stages", "answers_blind"))} | upper_bound(run, "answers"),
        highlight="both stages",
        percent=True,
    )


def upper_bound(run: Run, name: str) -> dict[str, float]:
    """Return the accuracy with the scene given as text, if this run has measured it."""
    if UPPER_BOUND not in run.arms[run.seeds[0]]:
        return {}
    return {"scene as text": fmean(run.measurements(UPPER_BOUND, name))}


def composition(run: Run) -> plots.Figure:
    """Draw the caption accuracy of every connector on seen and unseen combinations."""
    return plots.bars_with_intervals(
        {
            f"{label}, {combinations}": run.measurements(arm, f"{prefix}captions")
            for label, arm in trained_connectors(run).items()
            for combinations, prefix in (("seen", "seen_"), ("unseen", ""))
        },
        x_label="captions that name every object correctly",
        baselines=upper_bound(run, "captions"),
        highlight="both stages, unseen",
        percent=True,
    )


def captions(run: Run) -> plots.Figure:
    """Show generated captions, correct or not: one row of seen combinations, one row of unseen ones."""
    arm, scenes, texts = run.arms[run.seeds[0]]["both stages"], [], []
    for name, split in (("seen_captions_written", "validation"), ("captions_written", "test")):
        generated = arm[name][:4]
        scenes += sample_scenes(split, TEST_SEED, len(generated), OBJECTS)
        texts += generated
    correct = [is_true(text, scene) for text, scene in zip(texts, scenes, strict=True)]
    lines = [text.replace(" and ", "\nand ") for text in texts]
    return plots.image_grid(list(render_images(scenes, IMAGE_SIZE)), lines, correct=correct, columns=4)


def second_stage(run: Run) -> plots.Figure:
    """Draw the loss of every connector over the steps of the second stage."""
    return plots.learning_curves(
        {label: run.measurements(arm, "loss_curve") for label, arm in trained_connectors(run).items()},
        x_label="step of stage 2",
        y_label="cross-entropy (nats per token)",
    )


def pairs(run: Run) -> plots.Figure:
    """Draw the answer accuracy over the number of pairs in stage 2, with and without stage 1."""
    figure = plots.learning_curves(
        {
            "both stages": run.measurements("pairs", "answers_curve"),
            "stage 2 alone": run.measurements("pairs, stage 2 alone", "answers_curve"),
        },
        x_label="image–text pairs in stage 2",
        y_label="accuracy on questions",
        percent=True,
    )
    counts, _ = run.measurements("pairs", "answers_curve")[0]
    figure.axes[0].set(xscale="log", xticks=counts, xticklabels=[f"{count:,}" for count in counts])
    figure.axes[0].minorticks_off()
    return figure


def masks() -> plots.Figure:
    """Draw the three masks of one sequence side by side."""
    segments = torch.zeros(1, 4, dtype=torch.long)
    figure, axes = plots.subplots(height=2.9, columns=3)
    for axis, task in zip(axes[0], TASKS, strict=True):
        matrix = task_mask_matrix(task, 4, segments)[0]
        axis.imshow(matrix, cmap=plots.SEQUENTIAL, vmin=0, vmax=1.4)
        axis.set(xticks=[1.5, 5.5], xticklabels=["queries", "text"], yticks=[1.5, 5.5], xlabel=task)
        axis.set_yticklabels(["queries", "text"], rotation=90, va="center")
        # White lines between the tokens, a wider one between queries and text.
        for place in range(1, len(matrix)):
            for line in (axis.axhline, axis.axvline):
                line(place - 0.5, color="white", linewidth=4 if place == 4 else 1)
        axis.grid(visible=False)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    return figure
