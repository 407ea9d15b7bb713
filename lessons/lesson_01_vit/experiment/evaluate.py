"""Measurements: accuracy, properties of trained models, and the baselines without a Vision Transformer."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_01_vit.experiment.data import ImageData, load_images
from lessons.lesson_01_vit.model import VisionTransformer, patch_coordinates
from shared.course.context import RunContext

# ── Trained models ────────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def outlier_fraction(model: VisionTransformer, images: Tensor, factor: float = 3.0) -> float:
    """Return the fraction of patch tokens whose norm after the last block exceeds `factor` times the median norm.

    Large models store global information in such tokens of the background (arXiv:2309.16588, section 2.1).
    """
    norms = model.hidden_states(images)[-1][:, model.config.prefix_tokens :].norm(dim=-1)
    return (norms > factor * norms.median()).float().mean().item()


@torch.no_grad()
def position_similarity(model: VisionTransformer) -> Float[Tensor, "rows columns rows columns"]:
    """Return the cosine similarity of every pair of learned patch positions, after subtracting their mean."""
    if model.positions is None:
        raise ValueError(f"the model has no learned positions; its config has positions={model.config.positions!r}")
    positions = model.positions[model.config.prefix_positions :]
    positions = F.normalize(positions - positions.mean(dim=0), dim=1)
    rows, columns = model.config.grid
    return (positions @ positions.T).reshape(rows, columns, rows, columns).cpu()


def neighbor_similarity(similarity: Float[Tensor, "rows columns rows columns"]) -> float:
    """Return the mean similarity of adjacent patches minus that of all other pairs."""
    rows, columns = similarity.shape[:2]
    coordinates = patch_coordinates((rows, columns))
    distances = (coordinates[:, None] - coordinates[None]).abs().sum(dim=-1)
    flat = similarity.flatten(0, 1).flatten(1)
    return (flat[distances == 1].mean() - flat[distances > 1].mean()).item()


# ── Baselines ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def measure_baselines(context: RunContext, *, other_writers: bool = False) -> dict:
    """Measure nearest neighbor and softmax regression on raw pixels, on the same held-out images."""
    images = load_images(context.data, other_writers=other_writers)
    return {
        "nearest_neighbor": nearest_neighbor(images, context.device),
        "softmax_regression": softmax_regression(images, context.device, context.seed),
    }


def nearest_neighbor(images: ImageData, device: str) -> float:
    """Return the accuracy of the label of the nearest training image in pixel space.

    For small, centered, well-separated digits this is a strong baseline.
    """
    train, labels = images.train.flatten(1).to(device), images.train_labels.to(device)
    predictions = [
        labels[torch.cdist(part.to(device), train).argmin(dim=1)].cpu() for part in images.test.flatten(1).split(500)
    ]
    return fraction_equal(torch.cat(predictions), images.test_labels)


def softmax_regression(images: ImageData, device: str, seed: int, epochs: int = 40) -> float:
    """Return the accuracy of one linear layer on all pixels, trained to convergence."""
    torch.manual_seed(seed)
    pixels, labels = images.standardize(images.train).flatten(1).to(device), images.train_labels.to(device)
    layer = nn.Linear(pixels.shape[1], len(images.class_names)).to(device)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=3e-3, weight_decay=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(pixels), device=device).split(128):
            loss = F.cross_entropy(layer(pixels[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        logits = layer(images.standardized_test.flatten(1).to(device))
    return fraction_equal(logits.argmax(dim=1).cpu(), images.test_labels)


def fraction_equal(predictions: Int[Tensor, "images"], labels: Int[Tensor, "images"]) -> float:
    """Return the fraction of predictions that equal the labels."""
    return (predictions == labels.cpu()).float().mean().item()
