"""Figures of lesson 9, drawn from the measurements of a run."""

import numpy as np

from data.toybox.heldout import TEST_SEED
from data.toybox.tensors import render_tensors
from lessons.lesson_09_qwen_vl.experiment.arms import LENGTHS, RATES, SECONDS_FRAMES
from lessons.lesson_09_qwen_vl.experiment.boxes import UNITS, box_of, box_scenes
from lessons.lesson_09_qwen_vl.model.grounding import Corners, parse_boxes
from shared import plots
from shared.course.lesson import Run

CAPTIONS = {
    "lengths": "Accuracy on clips of five frames, the longest of training, and of ten and twenty frames.",
    "ids": "Largest position id of a clip with 4 × 4 tokens per frame, by the number of frames.",
    "seconds": "Seconds of a motion named exactly, by frame rate: two rates of training, and one that is new.",
    "recall": "Events told apart from sampled frames at equal mean numbers of tokens. In *steady* clips the number of "
    "events grows with the length.",
    "boxes": "Generated boxes (dark) and true ones (light) of test images, with the name and the generated corners.",
    "loss": "Training loss of the readers of clips: cross-entropy per token of the answers.",
}
NAMES = {"m-rope": "M-RoPE", "1-d": "one-dimensional", "absolute time": "absolute time", "frame ids": "frame ids"}
ZOOM = 4


def draw(run: Run) -> dict[str, plots.Figure]:
    """Draw every figure that the run's arms allow, the first one first on the page."""
    arms = set(run.arms[run.seeds[0]])
    drawn: dict[str, plots.Figure] = {}
    if {"m-rope", "1-d"} <= arms:
        drawn |= {"lengths": accuracy_by_length(run), "loss": loss_curves(run)}
    if "exact" in arms:
        drawn["ids"] = id_growth(run)
    if {"absolute time", "frame ids"} <= arms:
        drawn["seconds"] = seconds_by_rate(run)
    if "sampling" in arms:
        drawn["recall"] = recall_by_sampling(run)
    if "boxes" in arms:
        drawn["boxes"] = drawn_boxes(run.arms[run.seeds[0]]["boxes"]["texts"])
    return {name: drawn[name] for name in CAPTIONS if name in drawn}


def accuracy_by_length(run: Run) -> plots.Figure:
    """Draw the accuracy against the number of frames."""
    curves = {
        NAMES[arm]: [
            (list(LENGTHS), [arms[arm][f"{frames}x1000_all"] for frames in LENGTHS]) for arms in run.arms.values()
        ]
        for arm in ("m-rope", "1-d")
    }
    return plots.learning_curves(curves, x_label="frames (3 to 5 in training)", y_label="accuracy", percent=True)


def id_growth(run: Run) -> plots.Figure:
    """Draw the largest id against the number of frames, on a logarithmic scale."""
    curves = {
        "M-RoPE": run.measurements("exact", "mrope_ids"),
        "one-dimensional": run.measurements("exact", "one_axis_ids"),
    }
    return plots.learning_curves(curves, x_label="frames", y_label="largest id", logarithmic=True)


def seconds_by_rate(run: Run) -> plots.Figure:
    """Draw the accuracy of seconds for each kind of ids and frame rate."""
    bars = {
        f"{NAMES[arm]}, {1000 / gap:.3g} per second{'' if gap in RATES[:2] else ' (new)'}": run.measurements(
            arm, f"{SECONDS_FRAMES}x{gap}_second"
        )
        for arm in ("absolute time", "frame ids")
        for gap in RATES
    }
    return plots.bars_with_intervals(bars, x_label="seconds named exactly", percent=True)


def recall_by_sampling(run: Run) -> plots.Figure:
    """Draw the event recall of dynamic and uniform sampling."""
    bars = {
        f"{kind}, {way}": run.measurements("sampling", f"{prefix}{way}_1")
        for kind, prefix in (("all clips", ""), ("steady clips", "steady "))
        for way in ("dynamic", "uniform")
    }
    return plots.bars_with_intervals(bars, x_label="events told apart", percent=True)


def drawn_boxes(texts: list[str]) -> plots.Figure:
    """Draw test images with the true box of the first object and the box in the model's text."""
    scenes = box_scenes("test", TEST_SEED, len(texts), 1)
    images = render_tensors(scenes).permute(0, 2, 3, 1).numpy().repeat(ZOOM, axis=1).repeat(ZOOM, axis=2)
    captions = []
    for image, scene, text in zip(images, scenes, texts, strict=True):
        true = box_of(scene.objects[0])
        outline(image, true.corners, 160)
        read = parse_boxes(text, UNITS)
        if read:
            outline(image, read[0].corners, 0)
        captions.append(f"{true.label}\n{[round(value) for value in read[0].corners] if read else 'no box'}")
    return plots.image_grid(list(images), captions, columns=4)


def outline(image: np.ndarray, corners: Corners, shade: int) -> None:
    """Draw the outline of a box, in pixels of the original image, on the enlarged image."""
    left, top, right, bottom = (min(round(ZOOM * value), ZOOM * UNITS[0] - 1) for value in corners)
    image[top, left : right + 1] = image[bottom, left : right + 1] = shade
    image[top : bottom + 1, left] = image[top : bottom + 1, right] = shade


def loss_curves(run: Run) -> plots.Figure:
    """Draw the training loss of the readers of clips."""
    return plots.learning_curves(
        {NAMES[arm]: run.measurements(arm, "loss_curve") for arm in ("m-rope", "1-d")},
        y_label="cross-entropy (nats per token)",
    )
