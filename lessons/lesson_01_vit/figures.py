"""The lesson's figures, drawn from what a run has measured and trained."""

from collections.abc import Mapping
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional as F

from lessons.lesson_01_vit.arms.few_labels import autoencoder
from lessons.lesson_01_vit.arms.images import Images, read_images, small_config
from lessons.lesson_01_vit.model import VisionTransformer, patchify
from shared import plots
from shared.course.lesson import Run
from shared.training import load_weights

CAPTIONS = {
    "learning_curves": "Held-out accuracy while it learns, with positions and without, against two simpler readers.",
    "order": "Telling an intact digit from the same patches shuffled: without positions no better than a coin.",
    "attention": "Where the class token looks in the last block, head by head, on held-out digits.",
    "position_similarity": "What it learned about places. Each small map belongs to one patch and shows how like its "
    "position vector is to those of all 16: neighbours are alike, though nobody told it what a neighbour is.",
    "masked_autoencoder": "Held-out digits, with 12 of 16 patches hidden, and as the autoencoder paints them.",
    "few_labels": "With few labels: from scratch, after masked pretraining, and with a teacher (a dot a seed).",
}


def draw(run: Run) -> dict[str, plots.Card]:
    """Every figure that the run's arms allow, the first one the lesson's face."""
    arms = run.arms[run.seeds[0]]
    if "large" in arms:
        return {"large_learning_curve": curves(run, {"Vision Transformer": "large"}, {})}
    images = read_images(run.data)
    figures = {
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


def trained(run: Run, arm: str, images: Images) -> VisionTransformer:
    """An arm's model of the first seed, as training has left it."""
    model = VisionTransformer(small_config(images))
    return load_weights(model, run.arm_folder(run.seeds[0], arm)).eval()


def curves(run: Run, names: Mapping[str, str], baselines: Mapping[str, float]) -> plots.Card:
    """Held-out accuracy over the steps of training, by arm."""
    return plots.learning_curves(
        {name: measured(run, arm, "accuracy_curve") for name, arm in names.items()},
        y_label="held-out accuracy",
        baselines=baselines,
        percent=True,
    )


def learning_curves(run: Run) -> plots.Card:
    """With and without positions, against the simpler readers."""
    baselines = {
        name.replace("_", " "): fmean(measured(run, "baselines", name))
        for name in ("nearest_neighbour", "softmax_regression")
    }
    return curves(run, {"with positions": "vit", "without": "without positions"}, baselines)


def order(run: Run) -> plots.Card:
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


def attention(run: Run, images: Images) -> plots.Card:
    """The class token's look at the patches, in the last block."""
    model = trained(run, "vit", images)
    rows = one_of_each(images, 4)
    last = model.attention_maps(images.standardised_test[rows])[-1]
    looks = last[:, :, 0, model.before_patches :].unflatten(-1, model.config.grid)
    captions = [f"head {head + 1}" for head in range(looks.shape[1])]
    return plots.attention_overlay(list(images.test[rows]), looks, captions=captions)


def position_similarity(run: Run, images: Images) -> plots.Card:
    """Cosine similarity of every patch's position to those of all patches."""
    model = trained(run, "vit", images)
    positions = model.positions.detach()[model.config.leading :]
    positions = F.normalize(positions - positions.mean(dim=0), dim=1)
    rows, columns = model.config.grid
    return plots.matrix_grid((positions @ positions.T).reshape(rows, columns, rows, columns))


@torch.no_grad()
def masked_autoencoder(run: Run, images: Images) -> plots.Card:
    """Held-out digits: what the encoder was shown, what the decoder painted, and the truth."""
    model = autoencoder(small_config(images), 0.75)
    folder = run.arm_folder(run.seeds[0], "few labels, masked 75 %") / "pretraining"
    model = load_weights(model, folder).eval()
    rows = one_of_each(images, 6)
    pixels = images.standardised_test[rows]
    patches = patchify(pixels, model.config.encoder.patch_size).shape[1]
    noise = torch.rand(len(rows), patches, generator=torch.Generator().manual_seed(0))
    pictures = [*model.reconstruct(pixels, noise), pixels]
    pictures = [(group * images.spread + images.mean).clamp(0, 1) for group in pictures]
    captions = [name for name in ("shown", "painted", "the digit") for _ in rows]
    return plots.image_grid([image for group in pictures for image in group], captions, columns=len(rows))


def few_labels(run: Run) -> plots.Card:
    """The arms that have few labels."""
    names = {
        "10 a class, from scratch": "few labels",
        "10 a class, 25 % masked": "few labels, masked 25 %",
        "10 a class, 75 % masked": "few labels, masked 75 %",
        "20 a class, labels alone": "taught by labels",
        "20 a class, with a teacher": "taught by a CNN",
    }
    return plots.bars_with_intervals(
        {name: measured(run, arm, "accuracy") for name, arm in names.items()},
        x_label="held-out accuracy",
        start=0.85,
        percent=True,
    )
