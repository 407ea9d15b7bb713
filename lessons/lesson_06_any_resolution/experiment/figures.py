"""Figures of lesson 6, drawn from the measurements of a run."""

from collections.abc import Sequence

import numpy as np
import torch

from data.toybox.heldout import TEST_SEED
from data.toybox.page.pages import page_at
from data.toybox.page.tensors import render_tensors
from data.toybox.tensors import normalize_pixels
from lessons.lesson_06_any_resolution.experiment.arms import BUDGETS, RESIZINGS, SCHEMES
from lessons.lesson_06_any_resolution.experiment.data import SETTINGS
from lessons.lesson_06_any_resolution.experiment.resizing import PATCH_SIZE, resize_page
from lessons.lesson_06_any_resolution.experiment.throughput import ROW_LENGTH
from lessons.lesson_06_any_resolution.model import ImagePatches, assign_rows
from lessons.lesson_06_any_resolution.model.packing import row_segments
from shared import plots
from shared.course.lesson import Run

CAPTIONS = {
    "aspect": "Accuracy of digits by the aspect ratio of the receipt, at most 128 tokens per page.",
    "resized": "One receipt as the encoder receives it, at most 128 tokens: native, square and AnyRes, which adds the "
    "whole page at low resolution.",
    "packing": "Rows of 256 tokens with the same images, padded and packed. Neighboring images differ in shade; "
    "white is padding.",
    "budgets": "Accuracy of digits on receipts by token budget, one model per way of resizing.",
    "charts": "Accuracy of digits on charts by token budget, the same models.",
    "positions": "Accuracy of digits on menus with aspect ratios unseen in training, by position scheme. Dashed: mean "
    "over the schemes on seen aspect ratios.",
    "loss": "Training loss of the readers: cross-entropy per character.",
}
NAMES = {"native": "native", "square": "square", "anyres": "AnyRes"}


def draw(run: Run) -> dict[str, plots.Figure]:
    """Draw every figure that the run's arms allow, the first one first on the page."""
    arms = set(run.arms[run.seeds[0]])
    drawn: dict[str, plots.Figure] = {}
    if {"native", "square"} <= arms:
        drawn |= {"aspect": accuracy_by_aspect(run), "resized": resized_receipt(), "loss": loss_curves(run)}
    if "packing" in arms:
        drawn["packing"] = packed_rows(run.arms[run.seeds[0]]["packing"]["lengths"])
    if {f"{resizing}, all budgets" for resizing in RESIZINGS} <= arms:
        budgets = run.arms[run.seeds[0]]["native, all budgets"]["recipe"]["budgets"]
        drawn["budgets"] = accuracy_by_budget(run, "receipt", budgets)
        drawn["charts"] = accuracy_by_budget(run, "chart", budgets)
    if {f"positions: {scheme}" for scheme in SCHEMES} <= arms:
        drawn["positions"] = accuracy_at_unseen_aspects(run)
    return {name: drawn[name] for name in CAPTIONS if name in drawn}


def accuracy_by_aspect(run: Run) -> plots.Figure:
    """Draw the accuracy of digits against height / width."""
    return plots.learning_curves(
        {NAMES[arm]: run.measurements(arm, "receipt_128_by_aspect") for arm in ("native", "square")},
        x_label="height / width of the receipt",
        y_label="accuracy of digits",
        percent=True,
    )


def accuracy_by_budget(run: Run, kind: str, budgets: Sequence[int] = BUDGETS) -> plots.Figure:
    """Draw the accuracy of digits against the token budget, for each way of resizing."""
    curves = {
        NAMES[resizing]: [
            (list(budgets), [arms[f"{resizing}, all budgets"][f"{kind}_{budget}_digits"] for budget in budgets])
            for arms in run.arms.values()
        ]
        for resizing in RESIZINGS
    }
    return plots.learning_curves(curves, x_label="tokens per page, at most", y_label="accuracy of digits", percent=True)


def accuracy_at_unseen_aspects(run: Run) -> plots.Figure:
    """Draw the accuracy of digits on tall and on wide menus, for each position scheme."""
    bars = {}
    for scheme in SCHEMES:
        arm = f"positions: {scheme}"
        for kind, name in (("tall menu", "1:5 to 1:3"), ("wide menu", "3:1 to 5:1")):
            bars[f"{scheme}, {name}"] = run.measurements(arm, f"{kind}_128_digits")
    trained = [value for scheme in SCHEMES for value in run.measurements(f"positions: {scheme}", "menu_128_digits")]
    return plots.bars_with_intervals(
        bars, x_label="accuracy of digits", baselines={"1:2 to 2:1, mean": float(np.mean(trained))}, percent=True
    )


def resized_receipt(number: int = 3, budget: int = 128) -> plots.Figure:
    """Draw a test receipt as it is printed and in each way of resizing, at the size that the encoder receives."""
    page = page_at("test", TEST_SEED, number, SETTINGS["receipt"])
    (image,) = render_tensors([page])
    drawn = [image.permute(1, 2, 0).numpy()]
    captions = [f"printed: {image.shape[1]} × {image.shape[2]} pixels"]
    points = torch.zeros(0, 2)
    for resizing in RESIZINGS:
        parts = resize_page(normalize_pixels(image[None])[0], points, resizing, budget).images
        tokens = sum(map(len, parts))
        for index, part in enumerate(parts):
            drawn.append(as_image(part))
            name = NAMES[resizing] if len(parts) == 1 else ("whole page" if index == 0 else f"tile {index}")
            captions.append(f"{name}\n{part.grid[0]} × {part.grid[1]} patches" + (f", {tokens}" if index == 0 else ""))
    return plots.image_grid(drawn, captions, columns=4)


def as_image(part: ImagePatches) -> np.ndarray:
    """Return the pixels of an image's patches as bytes [height, width, 3]."""
    rows, columns = part.grid
    pixels = part.patches.reshape(rows, columns, PATCH_SIZE, PATCH_SIZE, 3).permute(0, 2, 1, 3, 4)
    flat = pixels.reshape(rows * PATCH_SIZE, columns * PATCH_SIZE, 3)
    return ((flat + 3.25) * 64).round().clamp(0, 255).byte().numpy()  # the inverse of normalize_pixels


def packed_rows(lengths: Sequence[int]) -> plots.Figure:
    """Draw which image each token belongs to, in padded and in packed rows."""
    assignments = {
        "padded": [[image] for image in range(len(lengths))],
        "packed": assign_rows(lengths, ROW_LENGTH),
    }
    figure, axes = plots.subplots(columns=2, height=3.6)
    for axis, (name, rows) in zip(axes[0], assignments.items(), strict=True):
        segments, _ = row_segments(rows, lengths, ROW_LENGTH)
        shades = np.where(segments.numpy() < 0, np.nan, 0.3 + 0.5 * (segments.numpy() % 3) / 2)
        axis.imshow(shades, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        axis.set(title=f"{name}: {len(rows)} rows", xlabel="token", ylabel="row", ylim=(len(lengths) - 0.5, -0.5))
    return figure


def loss_curves(run: Run) -> plots.Figure:
    """Draw the training loss of the readers of receipts."""
    return plots.learning_curves(
        {NAMES[arm]: run.measurements(arm, "loss_curve") for arm in ("native", "square")},
        y_label="cross-entropy (nats per character)",
    )
