"""Training of the part `vae`: autoencoders, and the Gaussian in principal components that they are compared with."""

import torch
from torch import Generator

from lessons.lesson_00_foundations.vae.experiment.classifier import train_classifier
from lessons.lesson_00_foundations.vae.experiment.data import load_images, noise_augmentation
from lessons.lesson_00_foundations.vae.experiment.evaluate import (
    evaluate_midpoints,
    evaluate_model,
    mean_squared_error,
)
from lessons.lesson_00_foundations.vae.experiment.pca import GaussianInPCA
from lessons.lesson_00_foundations.vae.model import AutoencoderConfig, VariationalAutoencoder, negative_elbo
from shared.course.context import RunContext
from shared.training import Batches, Evaluation, TrainingConfig, curve_from_history, train

TRAINING_FOLDER = "training"
"""Subfolder of the arm's folder with the autoencoder's checkpoints."""


def build_config(width: int, mlp_dim: list[int] | None = None) -> AutoencoderConfig:
    """Return the config of an autoencoder with codes of this width; `mlp_dim` comes from JSON as a list."""
    return AutoencoderConfig(width=width) if mlp_dim is None else AutoencoderConfig(width=width, mlp_dim=tuple(mlp_dim))


def train_vae(
    context: RunContext,
    *,
    steps: int,
    classifier_steps: int,
    width: int,
    mlp_dim: list[int] | None = None,
    learning_rate: float = 2e-3,
    kl_weight: float = 1.0,
) -> dict:
    """Train an autoencoder; measure its bound, its reconstructions and its samples with held-out digits."""
    seed, images = context.seed, load_images(context.seed)
    torch.manual_seed(seed)
    model = VariationalAutoencoder(build_config(width, mlp_dim))
    noise = torch.randn(len(images.test), width, generator=Generator().manual_seed(seed))

    def evaluate_elbo(model: VariationalAutoencoder) -> dict[str, float]:
        device = next(model.parameters()).device
        log_likelihood, kl = model.elbo(images.test.to(device), noise.to(device))
        return {"elbo": (log_likelihood - kl).mean().item(), "kl": kl.mean().item()}

    config = TrainingConfig(
        steps=steps,
        learning_rate=learning_rate,
        warmup_steps=steps // 20,
        clip_norm=100.0,
        seed=seed,
        log_every=max(1, steps // 20),
    )
    result = train(
        model,
        Batches(images.train, batch_size=128, seed=seed, augment=noise_augmentation(width)),
        lambda model, batch: negative_elbo(model, *batch, kl_weight),
        config,
        run=context.subfolder(TRAINING_FOLDER).run_options(label=context.folder.name),
        evaluation=Evaluation(evaluate_elbo, every=max(1, steps // 20)),
    )
    model = result.model.cpu()
    classifier = train_classifier(context, images, classifier_steps)
    with torch.no_grad():
        return {
            **evaluate_model(model, images, classifier, seed),
            **evaluate_elbo(model),
            **evaluate_midpoints(model, images, classifier, seed),
            "training_error": mean_squared_error(model.reconstruct(images.train), images.train),
            "elbo_curve": curve_from_history(result.history, "evaluation/elbo"),
            "loss_curve": curve_from_history(result.history, "loss"),
        }


def fit_pca(context: RunContext, *, classifier_steps: int, width: int) -> dict:
    """Fit the Gaussian in principal components, and measure it like the autoencoders."""
    images = load_images(context.seed)
    classifier = train_classifier(context, images, classifier_steps)
    with torch.no_grad():
        return evaluate_model(GaussianInPCA.fit(images.train, width), images, classifier, context.seed)
