"""Figures of lesson 8, drawn from the measurements of a run."""

import numpy as np

from data.toybox.heldout import TEST_SEED
from data.toybox.video.tensors import render_clip_tensors
from lessons.lesson_08_onevision.experiment.data import FRAME_COUNTS, question_of_number, times_of, visual_counts
from shared import plots
from shared.course.lesson import Run

CAPTIONS = {
    "transfer": "Accuracy on questions about directions in videos. Two of the models were trained without videos.",
    "inputs": "One story as an image, as two images and as a video of eight frames, with a question for each.",
    "types": "Accuracy by type of input: the one model, the specialist of that type, and the blind baseline.",
    "loss": "Training loss of the last stage: cross-entropy per token of the answers, by training data.",
}
NAMES = {
    "onevision": "all types",
    "image + images": "single and several images",
    "image + one frame": "one frame per example",
    "image specialist": "single images",
    "blind": "blind",
}
KIND_NAMES = {"image": "image", "images": "images", "video": "video"}
CHANCE = 0.5
"""Every question about a direction names two answers."""


def draw(run: Run) -> dict[str, plots.Figure]:
    """Draw every figure that the run's arms allow, the first one first on the page."""
    return {
        "transfer": video_accuracy(run),
        "inputs": story_inputs(),
        "types": accuracy_by_type(run),
        "loss": loss_curves(run),
    }


def trained(run: Run) -> list[str]:
    """Return the names of the arms that were trained."""
    return [arm for arm in run.arms[run.seeds[0]] if arm != "exact"]


def video_accuracy(run: Run) -> plots.Figure:
    """Draw the accuracy on directions in videos, for every arm that was trained on questions about directions."""
    arms = [arm for arm in trained(run) if arm != "image specialist"]
    bars = {NAMES.get(arm, arm): run.measurements(arm, "video_direction") for arm in arms}
    return plots.bars_with_intervals(
        bars, x_label="accuracy on directions in videos", baselines={"chance": CHANCE}, percent=True
    )


def accuracy_by_type(run: Run) -> plots.Figure:
    """Draw the accuracy on each type of input: of the one model, of the specialist, and of the blind baseline."""
    bars = {}
    for kind, name in KIND_NAMES.items():
        arms = {"all types": "onevision", "specialist": f"{kind} specialist", "blind": "blind"}
        for label, arm in arms.items():
            if arm in trained(run):
                bars[f"{name}, {label}"] = run.measurements(arm, f"{kind}_all")
    return plots.bars_with_intervals(bars, x_label="accuracy", percent=True)


def story_inputs(number: int = 0) -> plots.Figure:
    """Draw the first test question about a direction, as every type of input, with the number of tokens."""
    clip, question = question_of_number("test", TEST_SEED, number, "video", (1, 1))
    drawn: list[np.ndarray] = []
    captions: list[str] = []
    for kind in FRAME_COUNTS:
        frames = FRAME_COUNTS[kind][0]
        pixels = render_clip_tensors([clip], [times_of(clip, frames)])[0]
        drawn += list(pixels.permute(0, 2, 3, 1).numpy())
        tokens = sum(visual_counts(frames))
        captions += [f"{KIND_NAMES[kind]}\n{tokens} tokens", *[""] * (frames - 1)]
    return plots.image_grid(drawn, captions, columns=len(drawn), title=f"{question.text} {question.answer}")


def loss_curves(run: Run) -> plots.Figure:
    """Draw the training loss of the last stage of every trained arm but the specialists."""
    arms = [arm for arm in trained(run) if not arm.endswith("specialist")]
    return plots.learning_curves(
        {NAMES.get(arm, arm): run.measurements(arm, "mix_loss_curve") for arm in arms},
        y_label="cross-entropy (nats per token)",
    )
