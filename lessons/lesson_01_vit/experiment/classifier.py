"""Arms that classify whole images: the headline model, the same without positions, with registers, on other writers."""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_01_vit.experiment.augmentation import jitter
from lessons.lesson_01_vit.experiment.images import Images, read_images, small_config
from lessons.lesson_01_vit.model import VisionTransformer, patch_coordinates
from shared.training import Batches, Evaluation, RunOptions, TrainingConfig, curve_from_history, train

EVALUATIONS = 12
"""How often held-out accuracy is measured along the way."""


def train_classifier(
    *,
    seed: int,
    data: str,
    device: str,
    folder: Path,
    resume: bool,
    steps: int,
    other_writers: bool = False,
    **architecture,
) -> dict:
    """Train a ViT to name what an image shows; measure it on held-out images while it learns and at the end."""
    images = read_images(data, other_writers=other_writers)
    torch.manual_seed(seed)
    # Without it three blocks remember 1,438 digits; the few that it hides at each step keep them from that.
    model = VisionTransformer(small_config(images, drop_path=0.1, **architecture))
    batches = Batches(images.train, images.train_labels, batch_size=128, seed=seed, augment=jittered(images))
    measured = fit(
        model, batches, images.standardized_test, images.test_labels, steps=steps, learning_rate=3e-3, seed=seed,
        device=device, folder=folder, resume=resume,
    )  # fmt: skip
    measured["outlier_share"] = outlier_share(model, images.standardized_test[:200].to(device))
    if model.positions is not None:
        measured["neighbor_likeness"] = neighbor_likeness(position_similarity(model))
    return measured


def fit(
    model: nn.Module,
    batches: Callable,
    test: Tensor,
    test_labels: Tensor,
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    device: str,
    folder: Path,
    resume: bool,
    loss: Callable | None = None,
) -> dict:
    """Train a classifier with the lesson's recipe; return its held-out accuracy, and that and its loss along the way."""
    config = TrainingConfig(
        steps=steps, learning_rate=learning_rate, warmup_steps=steps // 10, betas=(0.9, 0.99), seed=seed, log_every=25
    )
    # On the way a thousand images are enough to see how it goes.
    few = slice(0, 1000)
    result = train(
        model,
        batches,
        loss or classification_loss,
        config,
        run=RunOptions(folder=folder, resume=resume, device=device, label=folder.name),
        evaluation=Evaluation(
            lambda trained: {"accuracy": accuracy(trained, test[few], test_labels[few])},
            every=max(1, steps // EVALUATIONS),
        ),
    )
    return {
        "accuracy": accuracy(result.model, test, test_labels),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "accuracy_curve": curve_from_history(result.history, "evaluation/accuracy"),
        "loss_curve": curve_from_history(result.history, "loss"),
    }


def classification_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of the logits and the true class, a tenth of it spread over all (arXiv:1512.00567, section 7)."""
    images, labels = batch
    return F.cross_entropy(model(images), labels, label_smoothing=0.1)


def jittered(images: Images) -> Callable:
    """Augmentation of a batch (images, labels): jitter the images, then standardize them."""

    def augment(batch: tuple[Tensor, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        pixels, labels = batch
        return images.standardize(jitter(pixels, generator)), labels

    return augment


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of images whose largest logit is the true class's."""
    model.eval()
    device = next(model.parameters()).device
    found = [model(part.to(device)).argmax(dim=1).cpu() for part in images.split(500)]
    return (torch.cat(found) == labels.cpu()).float().mean().item()


@torch.no_grad()
def outlier_share(model: VisionTransformer, images: Tensor, times: float = 3.0) -> float:
    """The share of patch tokens that leave the last block more than `times` as long as the median one.

    Large models put such tokens into the background, as scratch space (arXiv:2309.16588, section 2.1).
    """
    lengths = []
    hook = model.blocks[-1].register_forward_hook(
        lambda _block, _inputs, tokens: lengths.append(tokens[:, model.prefix_tokens :].norm(dim=-1))
    )
    model(images)
    hook.remove()
    length = torch.cat(lengths)
    return (length > times * length.median()).float().mean().item()


@torch.no_grad()
def position_similarity(model: VisionTransformer) -> Float[Tensor, "rows columns rows columns"]:
    """Cosine similarity of every patch's learned position to those of all patches, their mean taken off."""
    positions = model.positions[model.config.prefix_positions :]
    positions = F.normalize(positions - positions.mean(dim=0), dim=1)
    rows, columns = model.config.grid
    return (positions @ positions.T).reshape(rows, columns, rows, columns).cpu()


def neighbor_likeness(similarity: Float[Tensor, "rows columns rows columns"]) -> float:
    """Mean similarity of patches that share a side, less that of all other pairs."""
    rows, columns = similarity.shape[:2]
    places = patch_coordinates((rows, columns))
    steps = (places[:, None] - places[None]).abs().sum(dim=-1)
    flat = similarity.flatten(0, 1).flatten(1)
    return (flat[steps == 1].mean() - flat[steps > 1].mean()).item()
