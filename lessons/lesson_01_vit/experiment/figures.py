"""The lesson's figures, drawn from the measurements and the trained models of a run."""

from collections.abc import Mapping
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional as F

from lessons.lesson_01_vit.experiment.data import ImageData, load_images, small_config
from lessons.lesson_01_vit.experiment.evaluate import position_similarity
from lessons.lesson_01_vit.experiment.few_labels import autoencoder
from lessons.lesson_01_vit.model import VisionTransformer, patchify
from shared import plots
from shared.course.lesson import Run
from shared.training import load_weights

CAPTIONS = {
    "data_flow": "One held-out digit in the trained model: every panel shows the actual values.",
    "learning_curves": "Held-out accuracy during training, with and without positions, against two simpler baselines.",
    "order": "Distinguishing intact digits from digits with shuffled patches: without positions, accuracy is at "
    "chance.",
    "attention": "Attention of the class token in the last block, per head, on held-out digits.",
    "position_similarity": "Learned positions: each small map belongs to one patch and shows the cosine similarity of "
    "its position to those of all 16 patches. Adjacent patches are similar, although no input encodes adjacency.",
    "masked_autoencoder": "Held-out digits with 12 of 16 patches masked, and as the autoencoder reconstructs them.",
    "few_labels": "Few labels: from scratch, after masked pretraining, and with a teacher (one dot per seed).",
}
MASKED_ARM = "few labels, masked 75 %"


def draw_figures(run: Run) -> dict[str, plots.Figure]:
    """Draw every figure that the run's arms allow; the first one represents the lesson."""
    if run.preset == "gpu":
        return {"large_learning_curve": draw_accuracy_curves(run, {"Vision Transformer": "large"}, {})}
    images = load_images(run.data)
    figures = {
        "data_flow": draw_data_flow(run, images),
        "learning_curves": draw_learning_curves(run),
        "order": draw_order(run),
        "attention": draw_attention(run, images),
        "position_similarity": draw_position_similarity(run, images),
    }
    if MASKED_ARM in run.arms[run.seeds[0]]:
        figures["masked_autoencoder"] = draw_masked_autoencoder(run, images)
        figures["few_labels"] = draw_few_labels(run)
    return figures


def trained_model(run: Run, images: ImageData, seed: int) -> VisionTransformer:
    """Return the headline arm's trained model."""
    model = VisionTransformer(small_config(images))
    return load_weights(model, run.arm_folder(seed, "vit")).eval()


def first_of_each_class(images: ImageData, count: int) -> Tensor:
    """Return the index of the first held-out image of each of the first `count` classes."""
    return torch.stack([(images.test_labels == label).int().argmax() for label in range(count)])


@torch.no_grad()
def draw_data_flow(run: Run, images: ImageData) -> plots.Figure:
    """Draw image → patches → tokens with positions → tokens after the blocks → logits, for one held-out image."""
    model = trained_model(run, images, run.seeds[0])
    config, (rows, columns) = model.config, model.config.grid
    pixels = images.standardized_test[:1]
    size = config.patch_size
    tokens, _ = model.embed(pixels)
    features = model.features(pixels)
    logits = model(pixels)[0]
    # One empty pixel between the patches shows that they are separate.
    separated = F.pad(
        images.test[0].mean(dim=0).unflatten(0, (rows, size)).unflatten(2, (columns, size)),
        (0, 1, 0, 0, 0, 1),
        value=float("nan"),
    )
    patches_shape = f"[{rows * columns}, {config.channels * size**2}]"
    stages = {
        f"image\n{list(pixels.shape[1:])}": images.test[0].mean(dim=0),
        f"patches\n{patches_shape}": separated.flatten(2, 3).flatten(0, 1)[:-1, :-1],
        f"project + positions\n{list(tokens.shape[1:])}": tokens[0],
        f"{config.depth} blocks + norm\n{list(features.shape[1:])}": features[0],
        f"head\n[{len(logits)}]": logits[:, None],
    }
    figure, axes = plots.subplots(height=2.7, columns=len(stages))
    for index, (axis, (name, values)) in enumerate(zip(axes[0], stages.items(), strict=True)):
        is_image, is_last = index < 2, index == len(stages) - 1
        limit = values[values.isfinite()].abs().max()
        axis.imshow(
            values,
            cmap="gray" if is_image else plots.DIVERGING,
            vmin=0 if is_image else -limit,
            vmax=limit,
            aspect="equal" if is_image or is_last else "auto",
            interpolation="nearest",
        )
        axis.grid(visible=False)
        axis.set(xticks=[], yticks=range(len(logits)) if is_last else [], xlabel=name)
        axis.spines[:].set_visible(False)
    prediction = int(logits.argmax())
    axes[0, -1].annotate(
        f" {images.class_names[prediction]}", (0.6, prediction), va="center", fontweight="bold", annotation_clip=False
    )
    return figure


def draw_accuracy_curves(run: Run, arms: Mapping[str, str], baselines: Mapping[str, float]) -> plots.Figure:
    """Draw held-out accuracy during training, by arm."""
    return plots.learning_curves(
        {name: run.measurements(arm, "accuracy_curve") for name, arm in arms.items()},
        y_label="held-out accuracy",
        baselines=baselines,
        percent=True,
    )


def draw_learning_curves(run: Run) -> plots.Figure:
    """Draw the accuracy with and without positions, against the baselines."""
    baselines = {
        name.replace("_", " "): fmean(run.measurements("baselines", name))
        for name in ("nearest_neighbor", "softmax_regression")
    }
    return draw_accuracy_curves(run, {"with positions": "vit", "without": "without positions"}, baselines)


def draw_order(run: Run) -> plots.Figure:
    """Draw the accuracy of distinguishing intact images from images with shuffled patches."""
    return plots.bars_with_intervals(
        {
            "with positions": run.measurements("order", "accuracy"),
            "without positions": run.measurements("order without positions", "accuracy"),
        },
        x_label="held-out images classified correctly as intact or shuffled",
        baselines={"chance": 0.5},
        highlight="with positions",
        percent=True,
    )


def draw_attention(run: Run, images: ImageData) -> plots.Figure:
    """Draw the class token's attention to the patches in the last block."""
    model = trained_model(run, images, run.seeds[0])
    rows = first_of_each_class(images, 4)
    last = model.attention_maps(images.standardized_test[rows])[-1]
    weights = last[:, :, 0, model.config.prefix_tokens :].unflatten(-1, model.config.grid)
    captions = [f"head {head + 1}" for head in range(weights.shape[1])]
    return plots.attention_overlay(list(images.test[rows]), weights, captions=captions)


def draw_position_similarity(run: Run, images: ImageData) -> plots.Figure:
    """Draw the similarity of every patch's learned position to those of all patches, averaged over seeds."""
    similarities = [position_similarity(trained_model(run, images, seed)) for seed in run.seeds]
    return plots.heatmap_grid(torch.stack(similarities).mean(dim=0))


@torch.no_grad()
def draw_masked_autoencoder(run: Run, images: ImageData) -> plots.Figure:
    """Draw held-out digits with masked patches, their reconstructions and the digits themselves."""
    model = autoencoder(small_config(images), 0.75)
    model = load_weights(model, run.arm_folder(run.seeds[0], MASKED_ARM) / "pretraining").eval()
    rows = first_of_each_class(images, 6)
    pixels = images.standardized_test[rows]
    patches = patchify(pixels, model.config.encoder.patch_size).shape[1]
    noise = torch.rand(len(rows), patches, generator=torch.Generator().manual_seed(0))
    groups = [(group * images.std + images.mean).clamp(0, 1) for group in (*model.reconstruct(pixels, noise), pixels)]
    captions = [name for name in ("masked", "reconstructed", "original") for _ in rows]
    return plots.image_grid([image for group in groups for image in group], captions, columns=len(rows))


def draw_few_labels(run: Run) -> plots.Figure:
    """Draw the accuracy of the arms with few labels."""
    arms = {
        "5 per class, from scratch": "few labels",
        "5 per class, 25 % masked": "few labels, masked 25 %",
        "5 per class, 75 % masked": MASKED_ARM,
        "10 per class, no teacher": "no teacher",
        "10 per class, teacher on them": "distilled",
        "10 per class, teacher on all": "distilled, unlabeled images",
    }
    return plots.bars_with_intervals(
        {name: run.measurements(arm, "accuracy") for name, arm in arms.items()},
        x_label="held-out accuracy",
        start=0.7,
        percent=True,
    )
