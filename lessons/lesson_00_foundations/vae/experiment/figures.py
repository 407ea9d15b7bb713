"""The figures of the part `vae`."""

import numpy as np
import torch
from torch import Generator, Tensor

from lessons.lesson_00_foundations.vae.experiment.arms import Images, config_of, read_images
from lessons.lesson_00_foundations.vae.experiment.claims import NARROW, WIDTH
from lessons.lesson_00_foundations.vae.experiment.pca import GaussianInPCA
from lessons.lesson_00_foundations.vae.model import VariationalAutoencoder
from shared import plots
from shared.course.lesson import Run
from shared.training import load_weights

CAPTIONS = {
    "vae_samples": "Somebody wrote the held-out digits above; nobody the others: codes drawn from the prior, through the decoder, and "
    "a Gaussian in as many principal components. Not chosen: the first twelve of each.",
    "vae_walk": "From one held-out digit to another: along a straight line between their codes (above each pair), and by fading one "
    "reconstruction into the other (below).",
    "vae_map": "A code of two numbers, as a map. Left: where the encoder puts held-out digits, coloured by a label it never saw. "
    "Right: what the decoder writes at each place of the same map.",
    "vae_learning_curve": "The bound on held-out digits while it learns: with hidden layers, with one matrix each, with two numbers a "
    "code; dashed, two simpler models of the same counts.",
    "vae_judge": "The judge's score of samples (1: all alike or all unsure, 10: sure of each and every digit equally often).",
}
MAX_PIXEL = 16


def draw(run: Run) -> dict[str, plots.Figure]:
    """Every figure of the part."""
    images = read_images(run.seeds[0])
    return {
        "vae_samples": samples(run, images),
        "vae_walk": walk(run, images),
        "vae_map": latent_map(run, images),
        "vae_learning_curve": learning_curve(run),
        "vae_judge": judge(run),
    }


def trained(run: Run, arm: str, width: int) -> VariationalAutoencoder:
    """An arm's autoencoder of the first seed, as training has left it."""
    model = VariationalAutoencoder(config_of(width=width))
    return load_weights(model, run.arm_folder(run.seeds[0], arm) / "training").eval()


def measured(run: Run, arm: str, name: str) -> list:
    """One thing that an arm has measured, for every seed."""
    return [run.arms[seed][arm][name] for seed in run.seeds]


def as_pictures(images: Tensor) -> list[np.ndarray]:
    """Counts [n, 64] as pictures, ink dark on paper."""
    return list(1 - images.detach().unflatten(1, (8, 8)).numpy() / MAX_PIXEL)


@torch.no_grad()
def samples(run: Run, images: Images) -> plots.Figure:
    """Twelve held-out digits, and twelve samples of either model."""
    rows = {"real": images.test[:12]}
    for name, model in (("VAE", trained(run, "vae", WIDTH)), ("PCA", GaussianInPCA.fit(images.train, WIDTH))):
        rows[name] = model.sample(12, Generator().manual_seed(0))
    drawn = [picture for row in rows.values() for picture in as_pictures(row)]
    return plots.image_grid(drawn, [name for name in rows for _ in range(12)], columns=12)


@torch.no_grad()
def walk(run: Run, images: Images) -> plots.Figure:
    """Three pairs of held-out digits, each joined in two ways."""
    model = trained(run, "vae", WIDTH)
    first = [int((images.test_labels == digit).int().argmax()) for digit in range(10)]
    pictures, shares = [], torch.linspace(0, 1, 9)[:, None]
    for start, end in ((0, 6), (3, 8), (4, 9)):
        ends = images.test[[first[start], first[end]]]
        codes, _ = model.encode(ends)
        along = torch.lerp(codes[:1], codes[1:], shares)
        faded = torch.lerp(*model.ink(codes)[:, None], shares)
        pictures += as_pictures(model.ink(along)) + as_pictures(faded)
    return plots.image_grid(pictures, columns=9)


@torch.no_grad()
def latent_map(run: Run, images: Images) -> plots.Figure:
    """Codes of held-out digits by class, and the digit that each place decodes to."""
    model = trained(run, "vae, 2 wide", NARROW)
    codes, _ = model.encode(images.test)
    reach = 3.0
    card, axes = plots.subplots(height=4.3, columns=2)
    points, ink = axes[0]
    for digit in range(10):
        own = codes[images.test_labels == digit]
        colour = plots.PALETTE[digit % len(plots.PALETTE)]
        points.scatter(*own.T, s=5, color=colour, alpha=0.35, linewidths=0)
        for x, y in own[:12]:
            # The digit itself as the mark: ten colours can't be told apart, ten digits can.
            points.annotate(
                str(digit), (x, y), color=colour, fontsize=8, ha="center", va="center", annotation_clip=True
            )
    line = torch.linspace(-reach, reach, 15)
    grid = torch.stack(torch.meshgrid(line, line.flip(0), indexing="xy"), dim=-1).flatten(0, 1)
    rows = model.ink(grid).unflatten(0, (15, 15)).unflatten(2, (8, 8)).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    ink.imshow(1 - rows.numpy() / MAX_PIXEL, cmap="gray", vmin=0, vmax=1, extent=(-reach, reach, -reach, reach))
    for axis in (points, ink):
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="z₁", ylabel="z₂")
        axis.grid(visible=False)
    return card


def learning_curve(run: Run) -> plots.Figure:
    """The held-out bound over the steps, without the first ones that would squeeze the rest."""
    arms = {f"{WIDTH} wide": "vae", "one matrix each": "vae, one matrix each", f"{NARROW} wide": "vae, 2 wide"}

    def later(curve: tuple[list[int], list[float]]) -> tuple[list[int], list[float]]:
        steps, values = curve
        return steps[len(steps) // 10 :], values[len(steps) // 10 :]

    curves = {name: [later(curve) for curve in measured(run, arm, "elbo_curve")] for name, arm in arms.items()}
    baselines = {
        "independent pixels": float(np.mean(measured(run, "digits and their judge", "independent_log_likelihood"))),
        "PCA's Gaussian": float(np.mean(measured(run, "pca", "log_likelihood"))),
    }
    return plots.learning_curves(curves, y_label="bound on log p of a held-out digit, in nats", baselines=baselines)


def judge(run: Run) -> plots.Figure:
    """The score of every model's samples."""
    rows = {
        "real digits": ("digits and their judge", "real_score"),
        f"VAE, {WIDTH} wide": ("vae", "score"),
        f"VAE, {NARROW} wide": ("vae, 2 wide", "score"),
        "VAE, one matrix each": ("vae, one matrix each", "score"),
        "VAE trained without the KL": ("vae, codes for nothing", "score"),
        f"PCA's Gaussian, {WIDTH} wide": ("pca", "score"),
        f"PCA's Gaussian, {NARROW} wide": ("pca, 2 wide", "score"),
        "independent pixels": ("digits and their judge", "independent_score"),
    }
    return plots.bars_with_intervals(
        {name: measured(run, arm, what) for name, (arm, what) in rows.items()},
        x_label="score",
        highlight=f"VAE, {WIDTH} wide",
    )
