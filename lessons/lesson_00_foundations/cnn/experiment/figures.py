"""The figures of the part `cnn`, drawn from what a run has measured and trained."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_00_foundations.cnn.experiment.data import LEFT, POSITIONS, load_digits, place_on_canvas
from lessons.lesson_00_foundations.cnn.experiment.evaluate import accuracy_by_position
from lessons.lesson_00_foundations.cnn.experiment.train import build_model
from shared import plots
from shared.course.lesson import Run
from shared.training import load_weights

CAPTIONS = {
    "cnn_data_flow": "A held-out digit in the trained CNN: the canvas, eight of the stem's activation maps, the maps "
    "after each block, their means over positions, the logits.",
    "cnn_learning_curves": "Accuracy on held-out digits at any position of the canvas: the CNN and an MLP of equal "
    "size.",
    "cnn_positions": "Held-out accuracy by the position of the digit's top left corner. The models were trained on "
    "digits left of the line only.",
    "cnn_depth": "Training loss after equal steps: a deep network without shortcuts learns more slowly than a shallow "
    "one.",
}
SHOWN_MAPS = 8


def draw(run: Run) -> dict[str, plots.Figure]:
    """Draw every figure that the run's arms allow."""
    arms = run.arms[run.seeds[0]]
    if run.preset == "gpu" and "photographs, ResNet-20" in arms:
        return {"cnn_photographs": draw_photographs(run)}
    if "shifted, CNN" not in arms:
        return {}
    return {
        "cnn_data_flow": draw_data_flow(run),
        "cnn_learning_curves": draw_learning_curves(run),
        "cnn_positions": draw_positions(run),
        "cnn_depth": draw_depth(run),
    }


def load_trained(run: Run, arm: str, model: str) -> nn.Module:
    """Load an arm's trained model of the first seed."""
    return load_weights(build_model(model), run.arm_folder(run.seeds[0], arm)).eval()


@torch.no_grad()
def draw_data_flow(run: Run) -> plots.Figure:
    """Draw canvas → stem → blocks → mean over positions → logits for one held-out digit."""
    model, data = load_trained(run, "shifted, CNN", "cnn"), load_digits()
    canvas = place_on_canvas(data.test[:1], torch.tensor([6]), torch.tensor([2]))
    stem = F.relu(model.stem_norm(model.stem(canvas)))
    maps = [model.pool(stem)]
    for block in model.blocks:
        maps.append(block(maps[-1]))
    means = maps[-1].mean(dim=(2, 3))
    logits = model(canvas)[0]
    stages = {f"canvas\n{list(canvas.shape[1:])}": canvas[0, 0]}
    stages[f"stem\n{list(stem.shape[1:])}"] = mosaic(stem[0, :SHOWN_MAPS])
    for number, block_maps in enumerate(maps[1:], start=1):
        stages[f"block {number}\n{list(block_maps.shape[1:])}"] = mosaic(block_maps[0, :SHOWN_MAPS])
    stages[f"mean\n{list(means.shape[1:])}"] = means[0][:, None]
    stages[f"head\n[{len(logits)}]"] = logits[:, None]
    figure, axes = plots.subplots(height=3.0, columns=len(stages))
    for number, (axis, (name, values)) in enumerate(zip(axes[0], stages.items(), strict=True)):
        limit = values[values.isfinite()].abs().max()
        last = number == len(stages) - 1
        axis.imshow(
            values,
            cmap="gray" if number == 0 else plots.DIVERGING,
            vmin=0 if number == 0 else -limit,
            vmax=limit,
            aspect="auto" if number == len(stages) - 2 else "equal",
            interpolation="nearest",
        )
        axis.grid(visible=False)
        axis.set(xticks=[], yticks=range(len(logits)) if last else [], xlabel=name)
        axis.spines[:].set_visible(False)
    prediction = int(logits.argmax())
    axes[0, -1].annotate(f" {prediction}", (0.6, prediction), va="center", fontweight="bold", annotation_clip=False)
    return figure


def mosaic(maps: Float[Tensor, "maps height width"]) -> Float[Tensor, "rows columns"]:
    """Arrange maps in two columns with gaps of NaN, each divided by its own maximum."""
    scaled = maps / maps.flatten(1).amax(dim=1).clamp(min=1e-6)[:, None, None]
    framed = F.pad(scaled, (0, 1, 0, 1), value=float("nan"))
    return framed.unflatten(0, (-1, 2)).transpose(1, 2).flatten(2, 3).flatten(0, 1)[:-1, :-1]


def draw_learning_curves(run: Run) -> plots.Figure:
    """Draw the CNN and the MLP over equal steps, and the final accuracy of the other baselines."""
    names = {"CNN": "shifted, CNN", "MLP, equal size": "shifted, MLP"}
    return plots.learning_curves(
        {name: run.measurements(arm, "accuracy_curve") for name, arm in names.items()},
        y_label="held-out accuracy",
        baselines={
            "MLP, 4 × the steps": float(np.mean(run.measurements("shifted, MLP, long", "accuracy"))),
            "softmax regression": float(np.mean(run.measurements("shifted, softmax regression", "accuracy"))),
        },
        percent=True,
    )


def draw_photographs(run: Run) -> plots.Figure:
    """Draw the accuracy of ResNet-20 on CIFAR-10."""
    return plots.learning_curves(
        {"ResNet-20": run.measurements("photographs, ResNet-20", "accuracy_curve")},
        y_label="held-out accuracy",
        percent=True,
    )


def draw_positions(run: Run) -> plots.Figure:
    """Draw the accuracy at every position for models trained on the left half."""
    models: Mapping[str, nn.Module] = {
        "CNN": load_trained(run, "left half, CNN", "cnn"),
        "MLP of equal size": load_trained(run, "left half, MLP", "mlp"),
    }
    figure, axes = plots.subplots(height=3.6, columns=len(models))
    for axis, (name, model) in zip(axes[0], models.items(), strict=True):
        accuracies = accuracy_by_position(model)
        axis.imshow(accuracies, cmap=plots.SEQUENTIAL, vmin=0, vmax=1, interpolation="nearest")
        for (row, column), value in np.ndenumerate(accuracies):
            color = "white" if value > 0.5 else plots.INK
            axis.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=color, fontsize=8)
        axis.axvline(LEFT[1] - 0.5, color=plots.VERMILION, linewidth=2.5)
        axis.grid(visible=False)
        axis.set(xlabel=f"{name}: first column", ylabel="first row", xticks=range(POSITIONS), yticks=range(POSITIONS))
        axis.spines[:].set_visible(False)
    return figure


def draw_depth(run: Run) -> plots.Figure:
    """Draw the training loss of deep and shallow networks, with and without shortcuts."""
    names = {
        "10 layers, plain": "shallow, plain",
        "42 layers, plain": "deep, plain",
        "10 layers, shortcuts": "shallow, residual",
        "42 layers, shortcuts": "deep, residual",
    }
    return plots.bars_with_intervals(
        {name: run.measurements(arm, "training_loss") for name, arm in names.items()},
        x_label="final training loss (nats)",
        highlight="42 layers, shortcuts",
    )
