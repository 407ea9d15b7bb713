"""What the CNN part trains: digits anywhere on a canvas, stacks with and without shortcuts, and photographs on a GPU."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from data.datasets.load import load
from lessons.lesson_00_foundations.cnn.experiment.shifted import (
    CANVAS,
    EVERYWHERE,
    LEFT,
    RIGHT,
    held_out,
    read_digits,
    scattered,
)
from lessons.lesson_00_foundations.cnn.model import MLP, ResNet, count_parameters, mlp_of_equal_size
from shared.training import Batches, Evaluation, RunOptions, TrainingConfig, curve_from_history, train

CLASSES = 10
PLACES = {"everywhere": EVERYWHERE, "left": LEFT}
EVALUATIONS = 10
"""How often held-out accuracy is measured along the way."""


def build(name: str) -> nn.Module:
    """The models of the shifted digits: "cnn", an "mlp" of as many parameters (two hidden layers), or "softmax regression".

    Raises ValueError for another name.
    """
    cnn = ResNet(1, CLASSES, widths=(16, 32), blocks=1, pool=2)
    if name == "cnn":
        return cnn
    if name == "mlp":
        return mlp_of_equal_size(cnn, CANVAS**2, CLASSES, depth=2)
    if name == "softmax regression":
        return MLP(CANVAS**2, 0, CLASSES, depth=0)
    raise ValueError(f"no model {name!r}: choose cnn, mlp or softmax regression")


def train_shifted(
    *, seed: int, data: str, device: str, folder: Path, resume: bool, steps: int, model: str, places: str
) -> dict:
    """Train a model on digits laid at random places, everywhere or in the left half; measure it there and in the right half."""
    images = read_digits()
    torch.manual_seed(seed)
    network = build(model)
    batches = Batches(images.train, images.train_labels, batch_size=96, seed=seed, augment=scattered(PLACES[places]))
    measured = fit(
        network, batches, held_out(images, PLACES[places]), steps=steps, seed=seed, device=device, folder=folder,
        resume=resume,
    )  # fmt: skip
    return measured | {"accuracy_right": accuracy(network, *held_out(images, RIGHT))}


def train_deep(
    *, seed: int, data: str, device: str, folder: Path, resume: bool, steps: int, blocks: int, residual: bool
) -> dict:
    """Train a narrow stack of 2 · blocks + 2 layers, with shortcuts or without, on digits laid anywhere."""
    images = read_digits()
    torch.manual_seed(seed)
    network = ResNet(1, CLASSES, widths=(8,), blocks=blocks, pool=2, residual=residual)
    batches = Batches(images.train, images.train_labels, batch_size=64, seed=seed, augment=scattered(EVERYWHERE))
    measured = fit(
        network, batches, held_out(images, EVERYWHERE), steps=steps, seed=seed, device=device, folder=folder,
        resume=resume,
    )  # fmt: skip
    return measured | {"training_loss": measured["loss_curve"][1][-1], "layers": 2 * blocks + 2}


def fit(
    network: nn.Module,
    batches: Callable,
    test: tuple[Tensor, Tensor],
    *,
    steps: int,
    seed: int,
    device: str,
    folder: Path,
    resume: bool,
) -> dict:
    """Train a classifier; return its held-out accuracy, and that and its loss along the way."""
    config = TrainingConfig(
        steps=steps, learning_rate=1e-2, warmup_steps=steps // 10, betas=(0.9, 0.99), seed=seed,
        log_every=max(1, steps // 20),
    )  # fmt: skip
    few = slice(0, 359)  # on the way each held-out digit once
    result = train(
        network,
        batches,
        classification_loss,
        config,
        run=RunOptions(folder=folder, resume=resume, device=device, label=folder.name),
        evaluation=Evaluation(
            lambda trained: {"accuracy": accuracy(trained, test[0][few], test[1][few])},
            every=max(1, steps // EVALUATIONS),
        ),
    )
    return {
        "accuracy": accuracy(result.model, *test),
        "parameters": count_parameters(network),
        "accuracy_curve": curve_from_history(result.history, "evaluation/accuracy"),
        "loss_curve": curve_from_history(result.history, "loss"),
    }


def classification_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of the logits and the true class."""
    images, labels = batch
    return F.cross_entropy(model(images), labels)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of images whose largest logit is the true class's."""
    model.eval()
    device = next(model.parameters()).device
    found = [model(part.to(device)).argmax(dim=1).cpu() for part in images.split(500)]
    return (torch.cat(found) == labels.cpu()).float().mean().item()


def train_photographs(
    *, seed: int, data: str, device: str, folder: Path, resume: bool, steps: int, depth: int, batch_size: int
) -> dict:
    """Train the paper's ResNet of `depth` layers as its section 4.2 does, but for a cosine instead of two steps down."""
    found = load(data)
    train_pixels, test_pixels = (
        torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 for images in (found.train_images, found.test_images)
    )
    mean = train_pixels.mean(dim=0)  # the paper subtracts the mean picture
    torch.manual_seed(seed)
    network = ResNet(train_pixels.shape[1], len(found.class_names), (16, 32, 64), (depth - 2) // 6)
    batches = Batches(
        (train_pixels - mean).to(device), torch.from_numpy(found.train_labels).to(device), batch_size=batch_size,
        seed=seed, augment=crop_and_flip,
    )  # fmt: skip
    config = TrainingConfig(
        steps=steps, learning_rate=0.1, optimizer="sgd", weight_decay=1e-4, warmup_steps=steps // 100, clip_norm=None,
        seed=seed, log_every=max(1, steps // 100), checkpoint_every=max(1, steps // 10),
    )  # fmt: skip
    test = test_pixels - mean, torch.from_numpy(found.test_labels)
    result = train(
        network,
        batches,
        classification_loss,
        config,
        run=RunOptions(folder=folder, resume=resume, device=device, label=folder.name),
        evaluation=Evaluation(lambda trained: {"accuracy": accuracy(trained, *test)}, every=max(1, steps // 20)),
    )
    return {
        "accuracy": accuracy(result.model, *test),
        "parameters": count_parameters(network),
        "accuracy_curve": curve_from_history(result.history, "evaluation/accuracy"),
        "loss_curve": curve_from_history(result.history, "loss"),
    }


def crop_and_flip(batch: tuple[Tensor, Tensor], generator: Generator) -> tuple[Tensor, Tensor]:
    """Four pixels of nothing around each image, cut to its size at a random place, and half of them mirrored (section 4.2)."""
    images, labels = batch
    count, _, height, width = images.shape

    def choose(most: int) -> Tensor:
        return torch.randint(most, (count, 1), generator=generator, device=images.device)

    columns = torch.arange(width, device=images.device)
    columns = torch.where(choose(2).bool(), columns.flip(0), columns) + choose(9)
    rows = torch.arange(height, device=images.device) + choose(9)
    sample = torch.arange(count, device=images.device)[:, None, None]
    padded = F.pad(images, (4,) * 4).permute(0, 2, 3, 1)
    return padded[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2), labels
