"""The lesson's figures, drawn from what a run has measured and trained."""

from collections.abc import Mapping
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional as F

from lessons.lesson_01_vit.experiment import classifier
from lessons.lesson_01_vit.experiment.few_labels import autoencoder
from lessons.lesson_01_vit.experiment.images import Images, read_images, small_config
from lessons.lesson_01_vit.model import VisionTransformer, patchify
from shared import plots
from shared.course.lesson import Run
from shared.training import load_weights

CAPTIONS = {
    "data_flow": "One held-out digit on its way through the trained model; every panel shows the real numbers.",
    "learning_curves": "Held-out accuracy while it learns, with positions and without, against two simpler readers.",
    "order": "Telling an intact digit from the same patches shuffled: without positions no better than a coin.",
    "attention": "Where the class token looks in the last block, head by head, on held-out digits.",
    "position_similarity": "What it learned about places. Each small map belongs to one patch and shows how like its "
    "position vector is to those of all 16: neighbors are alike, though nobody told it what a neighbor is.",
    "masked_autoencoder": "Held-out digits, with 12 of 16 patches hidden, and as the autoencoder paints them.",
    "few_labels": "With few labels: from scratch, after masked pretraining, and with a teacher (a dot a seed).",
}


def draw(run: Run) -> dict[str, plots.Figure]:
    """Every figure that the run's arms allow, the first one the lesson's face."""
    if run.preset == "gpu":
        return {"large_learning_curve": curves(run, {"Vision Transformer": "large"}, {})}
    arms, images = run.arms[run.seeds[0]], read_images(run.data)
    figures = {
        "data_flow": data_flow(run, images),
        "learning_curves": learning_curves(run),
        "order": order(run),
        "attention": attention(run, images),
        "position_similarity": position_similarity(run, images),
    }
    if "few labels, masked 75 %" in arms:
        figures["masked_autoencoder"] = masked_autoencoder(run, images)
        figures["few_labels"] = few_labels(run)
    return figures


def measured(run: Run, arm: str, name: str) -> list:
    """One thing that an arm has measured, for every seed."""
    return [run.arms[seed][arm][name] for seed in run.seeds]


def trained(run: Run, arm: str, images: Images, seed: int | None = None) -> VisionTransformer:
    """An arm's model, of the first seed if no other is named, as training has left it."""
    model = VisionTransformer(small_config(images))
    return load_weights(model, run.arm_folder(run.seeds[0] if seed is None else seed, arm)).eval()


@torch.no_grad()
def data_flow(run: Run, images: Images) -> plots.Figure:
    """Image → patches → tokens with positions → tokens after the blocks → logits, for one held-out image."""
    model = trained(run, "vit", images)
    config, (rows, columns) = model.config, model.config.grid
    pixels = images.standardized_test[:1]
    size = config.patch_size
    tokens = model.add_prefix(model.embed_patches(pixels))
    thought = model.features(pixels)
    logits = model(pixels)[0]
    # The patches stand apart by one empty pixel, as if cut with scissors.
    cut = F.pad(
        images.test[0].mean(dim=0).unflatten(0, (rows, size)).unflatten(2, (columns, size)),
        (0, 1, 0, 0, 0, 1),
        value=float("nan"),
    )
    stages = {
        f"image\n{list(pixels.shape[1:])}": images.test[0].mean(dim=0),
        f"cut into patches\n[{rows * columns}, {config.channels * size**2}]": cut.flatten(2, 3).flatten(0, 1)[:-1, :-1],
        f"project + positions\n{list(tokens.shape[1:])}": tokens[0],
        f"{config.depth} blocks + norm\n{list(thought.shape[1:])}": thought[0],
        f"head\n[{len(logits)}]": logits[:, None],
    }
    card, axes = plots.subplots(height=2.7, columns=len(stages))
    for place, (axis, (name, values)) in enumerate(zip(axes[0], stages.items(), strict=True)):
        picture, last = place < 2, place == len(stages) - 1
        reach = values[values.isfinite()].abs().max()
        axis.imshow(
            values, cmap="gray" if picture else plots.DIVERGING, vmin=0 if picture else -reach, vmax=reach,
            aspect="equal" if picture or last else "auto", interpolation="nearest",
        )  # fmt: skip
        axis.grid(visible=False)
        axis.set(xticks=[], yticks=range(len(logits)) if last else [], xlabel=name)
        axis.spines[:].set_visible(False)
    guess = int(logits.argmax())
    axes[0, -1].annotate(
        f" {images.class_names[guess]}!", (0.6, guess), va="center", fontweight="bold", annotation_clip=False
    )
    return card


def curves(run: Run, names: Mapping[str, str], baselines: Mapping[str, float]) -> plots.Figure:
    """Held-out accuracy over the steps of training, by arm."""
    return plots.learning_curves(
        {name: measured(run, arm, "accuracy_curve") for name, arm in names.items()},
        y_label="held-out accuracy",
        baselines=baselines,
        percent=True,
    )


def learning_curves(run: Run) -> plots.Figure:
    """With and without positions, against the simpler readers."""
    baselines = {
        name.replace("_", " "): fmean(measured(run, "baselines", name))
        for name in ("nearest_neighbor", "softmax_regression")
    }
    return curves(run, {"with positions": "vit", "without": "without positions"}, baselines)


def order(run: Run) -> plots.Figure:
    """Intact or shuffled?"""
    return plots.bars_with_intervals(
        {
            "with positions": measured(run, "order", "accuracy"),
            "without positions": measured(run, "order without positions", "accuracy"),
        },
        x_label="held-out images rightly told intact or shuffled",
        baselines={"a coin": 0.5},
        highlight="with positions",
        percent=True,
    )


def one_of_each(images: Images, count: int) -> Tensor:
    """The first held-out image of each of the first `count` classes."""
    return torch.stack([(images.test_labels == label).int().argmax() for label in range(count)])


def attention(run: Run, images: Images) -> plots.Figure:
    """The class token's look at the patches, in the last block."""
    model = trained(run, "vit", images)
    rows = one_of_each(images, 4)
    last = model.attention_maps(images.standardized_test[rows])[-1]
    looks = last[:, :, 0, model.prefix_tokens :].unflatten(-1, model.config.grid)
    captions = [f"head {head + 1}" for head in range(looks.shape[1])]
    return plots.attention_overlay(list(images.test[rows]), looks, captions=captions)


def position_similarity(run: Run, images: Images) -> plots.Figure:
    """Every patch's learned position against those of all patches, the mean over seeds."""
    similar = [classifier.position_similarity(trained(run, "vit", images, seed)) for seed in run.seeds]
    return plots.heatmap_grid(torch.stack(similar).mean(dim=0))


@torch.no_grad()
def masked_autoencoder(run: Run, images: Images) -> plots.Figure:
    """Held-out digits: what the encoder was shown, what the decoder painted, and the truth."""
    model = autoencoder(small_config(images), 0.75)
    folder = run.arm_folder(run.seeds[0], "few labels, masked 75 %") / "pretraining"
    model = load_weights(model, folder).eval()
    rows = one_of_each(images, 6)
    pixels = images.standardized_test[rows]
    patches = patchify(pixels, model.config.encoder.patch_size).shape[1]
    noise = torch.rand(len(rows), patches, generator=torch.Generator().manual_seed(0))
    pictures = [*model.reconstruct(pixels, noise), pixels]
    pictures = [(group * images.spread + images.mean).clamp(0, 1) for group in pictures]
    captions = [name for name in ("shown", "painted", "the digit") for _ in rows]
    return plots.image_grid([image for group in pictures for image in group], captions, columns=len(rows))


def few_labels(run: Run) -> plots.Figure:
    """The arms that have few labels."""
    names = {
        "5 a class, from scratch": "few labels",
        "5 a class, 25 % masked": "few labels, masked 25 %",
        "5 a class, 75 % masked": "few labels, masked 75 %",
        "10 a class, labels alone": "taught by labels",
        "10 a class, a teacher on them": "taught by a CNN",
        "10 a class, a teacher on all": "taught by a CNN, new images",
    }
    return plots.bars_with_intervals(
        {name: measured(run, arm, "accuracy") for name, arm in names.items()},
        x_label="held-out accuracy",
        start=0.7,
        percent=True,
    )
