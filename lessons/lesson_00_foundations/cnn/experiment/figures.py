"""The CNN part's figures, drawn from what a run has measured and trained."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_00_foundations.cnn.experiment.arms import accuracy, build
from lessons.lesson_00_foundations.cnn.experiment.shifted import LEFT, PLACES, place, read_digits
from shared import plots
from shared.course.lesson import Run
from shared.training import load_weights

CAPTIONS = {
    "cnn_data_flow": "A held-out digit on its way through the trained CNN: the canvas, what eight of the stem's kernels answer to it, "
    "the maps after each block, their means, the logits.",
    "cnn_learning_curves": "Reading held-out digits anywhere on the canvas: the CNN and an MLP of as many parameters.",
    "cnn_places": "Held-out accuracy by where the digit lies (its top left corner), for models that saw digits in the left half "
    "of the places only, left of the line.",
    "cnn_depth": "Training loss after the same steps: a deep stack without shortcuts learns worse than a shallow one.",
}
SHOWN = 90
"""How many held-out digits are tried at every place."""


def draw(run: Run) -> dict[str, plots.Figure]:
    """Every figure that the run's arms allow."""
    arms = run.arms[run.seeds[0]]
    if run.preset == "gpu" and "photographs, ResNet-20" in arms:
        return {"cnn_photographs": photographs(run)}
    if "shifted, CNN" not in arms:
        return {}
    return {
        "cnn_data_flow": data_flow(run),
        "cnn_learning_curves": learning_curves(run),
        "cnn_places": places(run),
        "cnn_depth": depth(run),
    }


def measured(run: Run, arm: str, name: str) -> list:
    """One thing that an arm has measured, for every seed."""
    return [run.arms[seed][arm][name] for seed in run.seeds]


def trained(run: Run, arm: str, model: str) -> nn.Module:
    """An arm's model, of the first seed, as training has left it."""
    return load_weights(build(model), run.arm_folder(run.seeds[0], arm)).eval()


@torch.no_grad()
def data_flow(run: Run) -> plots.Figure:
    """Canvas → stem → blocks → mean over places → logits, for one held-out digit."""
    model, data = trained(run, "shifted, CNN", "cnn"), read_digits()
    canvas = place(data.test[:1], torch.tensor([6]), torch.tensor([2]))
    stem = F.relu(model.stem_norm(model.stem(canvas)))
    maps = [stem, model.pool(stem)]
    for block in model.blocks:
        maps.append(block(maps[-1]))
    means = maps[-1].mean(dim=(2, 3))
    logits = model(canvas)[0]
    stages = {f"canvas\n{list(canvas.shape[1:])}": canvas[0, 0]}
    stages[f"stem\n{list(stem.shape[1:])}"] = mosaic(stem[0, :8])
    for number, found in enumerate(maps[2:], start=1):
        stages[f"block {number}\n{list(found.shape[1:])}"] = mosaic(found[0, :8])
    stages[f"mean\n{list(means.shape[1:])}"] = means[0][:, None]
    stages[f"head\n[{len(logits)}]"] = logits[:, None]
    card, axes = plots.subplots(height=3.0, columns=len(stages))
    for number, (axis, (name, values)) in enumerate(zip(axes[0], stages.items(), strict=True)):
        reach = values[values.isfinite()].abs().max()
        last = number == len(stages) - 1
        axis.imshow(
            values, cmap="gray" if number == 0 else plots.DIVERGING, vmin=0 if number == 0 else -reach, vmax=reach,
            aspect="auto" if number == len(stages) - 2 else "equal", interpolation="nearest",
        )  # fmt: skip
        axis.grid(visible=False)
        axis.set(xticks=[], yticks=range(len(logits)) if last else [], xlabel=name)
        axis.spines[:].set_visible(False)
    guess = int(logits.argmax())
    axes[0, -1].annotate(f" {guess}!", (0.6, guess), va="center", fontweight="bold", annotation_clip=False)
    return card


def mosaic(maps: Float[Tensor, "maps height width"]) -> Float[Tensor, "rows columns"]:
    """Maps in two columns, a hair apart, each in shares of its own greatest value."""
    scaled = maps / maps.flatten(1).amax(dim=1).clamp(min=1e-6)[:, None, None]
    framed = F.pad(scaled, (0, 1, 0, 1), value=float("nan"))
    return framed.unflatten(0, (-1, 2)).transpose(1, 2).flatten(2, 3).flatten(0, 1)[:-1, :-1]


def learning_curves(run: Run) -> plots.Figure:
    """The CNN and the MLP over the same steps; beside them what is reached otherwise."""
    names = {"CNN": "shifted, CNN", "MLP, equal size": "shifted, MLP"}
    return plots.learning_curves(
        {name: measured(run, arm, "accuracy_curve") for name, arm in names.items()},
        y_label="held-out accuracy",
        baselines={
            "MLP, 4 × the steps": float(np.mean(measured(run, "shifted, MLP, long", "accuracy"))),
            "softmax regression": float(np.mean(measured(run, "shifted, softmax regression", "accuracy"))),
        },
        percent=True,
    )


def photographs(run: Run) -> plots.Figure:
    """ResNet-20 on CIFAR-10."""
    return plots.learning_curves(
        {"ResNet-20": measured(run, "photographs, ResNet-20", "accuracy_curve")},
        y_label="held-out accuracy",
        percent=True,
    )


def accuracy_by_place(model: nn.Module) -> Float[np.ndarray, "places places"]:
    """Held-out accuracy for each place that a digit can begin at."""
    data = read_digits()
    images, labels = data.test[:SHOWN], data.test_labels[:SHOWN]
    found = np.empty((PLACES, PLACES))
    for row in range(PLACES):
        for column in range(PLACES):
            starts = torch.full((len(images),), row), torch.full((len(images),), column)
            found[row, column] = accuracy(model, place(images, *starts), labels)
    return found


def places(run: Run) -> plots.Figure:
    """Where models that were trained on the left half can read."""
    models: Mapping[str, nn.Module] = {
        "CNN": trained(run, "left half, CNN", "cnn"),
        "MLP of equal size": trained(run, "left half, MLP", "mlp"),
    }
    card, axes = plots.subplots(height=3.6, columns=len(models))
    for axis, (name, model) in zip(axes[0], models.items(), strict=True):
        found = accuracy_by_place(model)
        axis.imshow(found, cmap=plots.SEQUENTIAL, vmin=0, vmax=1, interpolation="nearest")
        for (row, column), value in np.ndenumerate(found):
            colour = "white" if value > 0.5 else plots.INK
            axis.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=colour, fontsize=8)
        axis.axvline(LEFT[1] - 0.5, color=plots.VERMILLION, linewidth=2.5)
        axis.grid(visible=False)
        axis.set(xlabel=f"{name}: first column", ylabel="first row", xticks=range(PLACES), yticks=range(PLACES))
        axis.spines[:].set_visible(False)
    return card


def depth(run: Run) -> plots.Figure:
    """Deep and shallow, with and without shortcuts."""
    names = {
        "10 layers, plain": "shallow, plain",
        "42 layers, plain": "deep, plain",
        "10 layers, shortcuts": "shallow, residual",
        "42 layers, shortcuts": "deep, residual",
    }
    return plots.bars_with_intervals(
        {name: measured(run, arm, "training_loss") for name, arm in names.items()},
        x_label="training loss at the end, in nats",
        highlight="42 layers, shortcuts",
    )
