"""The figures of the part `vae`, drawn from what a run has measured and trained."""

import numpy as np
import torch
from torch import Generator, Tensor

from lessons.lesson_00_foundations.vae.experiment.arms import (
    BASELINES,
    NARROW,
    PCA,
    PCA_NARROW,
    VAE,
    VAE_LINEAR,
    VAE_NARROW,
    VAE_WITHOUT_KL,
    WIDTH,
)
from lessons.lesson_00_foundations.vae.experiment.data import TRIALS, Images, load_images
from lessons.lesson_00_foundations.vae.experiment.pca import GaussianInPCA
from lessons.lesson_00_foundations.vae.experiment.train import TRAINING_FOLDER, build_config
from lessons.lesson_00_foundations.vae.model import VariationalAutoencoder
from shared import plots
from shared.course.lesson import Run
from shared.training import load_weights

CAPTIONS = {
    "vae_samples": "Held-out digits, samples of the VAE, and samples of probabilistic PCA of equal width: the first "
    "twelve of each, not selected.",
    "vae_interpolation": "From one held-out digit to another: decoded from codes on the line between theirs (above "
    "each pair), and as a cross-fade of their reconstructions (below).",
    "vae_map": "Codes of two dimensions. Left: the codes of held-out digits, labeled by a class that the encoder was "
    "not given. Right: the decoded image at each position.",
    "vae_learning_curve": "The bound on held-out digits during training, with hidden layers, for a linear model, and "
    "for codes of two dimensions; dashed, two simpler models of the same counts.",
    "vae_scores": "Inception score of samples by an independent classifier (1: one class or no confidence, 10: "
    "confident, and all digits equally frequent).",
}
SHOWN_SAMPLES = 12
MAP_LIMIT, MAP_SIDE = 3.0, 15


def draw(run: Run) -> dict[str, plots.Figure]:
    """Draw every figure of the part."""
    images = load_images(run.seeds[0])
    return {
        "vae_samples": draw_samples(run, images),
        "vae_interpolation": draw_interpolation(run, images),
        "vae_map": draw_map(run, images),
        "vae_learning_curve": draw_learning_curve(run),
        "vae_scores": draw_scores(run),
    }


def load_trained(run: Run, arm: str, width: int) -> VariationalAutoencoder:
    """Load an arm's trained autoencoder of the first seed."""
    model = VariationalAutoencoder(build_config(width))
    return load_weights(model, run.arm_folder(run.seeds[0], arm) / TRAINING_FOLDER).eval()


def to_grayscale(images: Tensor) -> list[np.ndarray]:
    """Convert counts [n, 64] to images of 8 × 8 with dark ink on white."""
    return list(1 - images.detach().unflatten(1, (8, 8)).numpy() / TRIALS)


@torch.no_grad()
def draw_samples(run: Run, images: Images) -> plots.Figure:
    """Draw held-out digits and samples of both models."""
    rows = {"real": images.test[:SHOWN_SAMPLES]}
    for name, model in (("VAE", load_trained(run, VAE, WIDTH)), ("PCA", GaussianInPCA.fit(images.train, WIDTH))):
        rows[name] = model.sample(SHOWN_SAMPLES, Generator().manual_seed(0))
    shown_images = [image for row in rows.values() for image in to_grayscale(row)]
    titles = [name for name in rows for _ in range(SHOWN_SAMPLES)]
    return plots.image_grid(shown_images, titles, columns=SHOWN_SAMPLES)


@torch.no_grad()
def draw_interpolation(run: Run, images: Images) -> plots.Figure:
    """Draw interpolations between three pairs of held-out digits, in codes and in pixels."""
    model = load_trained(run, VAE, WIDTH)
    first = [int((images.test_labels == digit).int().argmax()) for digit in range(10)]
    fractions = torch.linspace(0, 1, 9)[:, None]
    shown_images = []
    for start, end in ((0, 6), (3, 8), (4, 9)):
        codes, _ = model.encode(images.test[[first[start], first[end]]])
        between_codes = torch.lerp(codes[:1], codes[1:], fractions)
        cross_fade = torch.lerp(*model.expected_image(codes)[:, None], fractions)
        shown_images += to_grayscale(model.expected_image(between_codes)) + to_grayscale(cross_fade)
    return plots.image_grid(shown_images, columns=9)


@torch.no_grad()
def draw_map(run: Run, images: Images) -> plots.Figure:
    """Draw the codes of held-out digits by class, and the decoded image at each position."""
    model = load_trained(run, VAE_NARROW, NARROW)
    codes, _ = model.encode(images.test)
    figure, axes = plots.subplots(height=4.3, columns=2)
    code_axis, image_axis = axes[0]
    for digit in range(10):
        class_codes = codes[images.test_labels == digit]
        color = plots.PALETTE[digit % len(plots.PALETTE)]
        code_axis.scatter(*class_codes.T, s=5, color=color, alpha=0.35, linewidths=0)
        for x, y in class_codes[:12]:
            # The digit itself is the mark, since ten colors are hard to distinguish.
            code_axis.annotate(
                str(digit), (x, y), color=color, fontsize=8, ha="center", va="center", annotation_clip=True
            )
    line = torch.linspace(-MAP_LIMIT, MAP_LIMIT, MAP_SIDE)
    grid = torch.stack(torch.meshgrid(line, line.flip(0), indexing="xy"), dim=-1).flatten(0, 1)
    decoded = model.expected_image(grid).unflatten(0, (MAP_SIDE, MAP_SIDE)).unflatten(2, (8, 8))
    image = decoded.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    extent = (-MAP_LIMIT, MAP_LIMIT, -MAP_LIMIT, MAP_LIMIT)
    image_axis.imshow(1 - image.numpy() / TRIALS, cmap="gray", vmin=0, vmax=1, extent=extent)
    for axis in (code_axis, image_axis):
        axis.set(xlim=extent[:2], ylim=extent[2:], aspect="equal", xlabel="z₁", ylabel="z₂")
        axis.grid(visible=False)
    return figure


def draw_learning_curve(run: Run) -> plots.Figure:
    """Draw the held-out bound against the steps, without the first tenth, which would compress the rest."""
    arms = {f"width {WIDTH}": VAE, "linear": VAE_LINEAR, f"width {NARROW}": VAE_NARROW}

    def without_start(curve: tuple[list[int], list[float]]) -> tuple[list[int], list[float]]:
        steps, values = curve
        return steps[len(steps) // 10 :], values[len(steps) // 10 :]

    curves = {
        name: [without_start(curve) for curve in run.measurements(arm, "elbo_curve")] for name, arm in arms.items()
    }
    baselines = {
        "independent pixels": float(np.mean(run.measurements(BASELINES, "independent_log_likelihood"))),
        "probabilistic PCA": float(np.mean(run.measurements(PCA, "log_likelihood"))),
    }
    return plots.learning_curves(curves, y_label="bound on log p of a held-out digit (nats)", baselines=baselines)


def draw_scores(run: Run) -> plots.Figure:
    """Draw the inception score of every model's samples."""
    rows = {
        "real digits": (BASELINES, "real_inception_score"),
        f"VAE, width {WIDTH}": (VAE, "inception_score"),
        f"VAE, width {NARROW}": (VAE_NARROW, "inception_score"),
        "VAE, linear": (VAE_LINEAR, "inception_score"),
        "VAE without the KL": (VAE_WITHOUT_KL, "inception_score"),
        f"probabilistic PCA, width {WIDTH}": (PCA, "inception_score"),
        f"probabilistic PCA, width {NARROW}": (PCA_NARROW, "inception_score"),
        "independent pixels": (BASELINES, "independent_inception_score"),
    }
    return plots.bars_with_intervals(
        {name: run.measurements(arm, score) for name, (arm, score) in rows.items()},
        x_label="inception score",
        highlight=f"VAE, width {WIDTH}",
    )
