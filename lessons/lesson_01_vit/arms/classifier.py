"""Arms that classify whole images: the headline model, the same without positions, with registers, on other writers."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_01_vit.arms.augmentation import jitter
from lessons.lesson_01_vit.arms.images import Images, read_images, small_config
from lessons.lesson_01_vit.model import VisionTransformer
from shared.training import Batches, TrainingConfig, train

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
    model = VisionTransformer(small_config(images, **architecture))
    batches = Batches(images.train, images.train_labels, batch_size=64, seed=seed, augment=jittered(images))
    measured = fit(
        model, batches, images.standardised_test, images.test_labels, steps=steps, learning_rate=2e-3, seed=seed,
        device=device, folder=folder, resume=resume,
    )  # fmt: skip
    return measured | {"outlier_share": outlier_share(model, images.standardised_test[:200].to(device))}


def fit(
    model: nn.Module,
    batches: Batches,
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
        model, batches, loss or classification_loss, config, folder=folder, resume=resume, device=device,
        label=folder.name, evaluate=lambda trained: {"accuracy": accuracy(trained, test[few], test_labels[few])},
        evaluate_every=max(1, steps // EVALUATIONS),
    )  # fmt: skip
    return {
        "accuracy": accuracy(result.model, test, test_labels),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "accuracy_curve": curve(result.history, "evaluation/accuracy"),
        "loss_curve": curve(result.history, "loss"),
    }


def classification_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of the logits and the true class."""
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def jittered(images: Images) -> Callable:
    """Augmentation of a batch (images, labels): jitter the images, then standardise them."""

    def augment(batch: tuple[Tensor, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        pixels, labels = batch
        return images.standardise(jitter(pixels, generator)), labels

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
        lambda _block, _inputs, tokens: lengths.append(tokens[:, model.before_patches :].norm(dim=-1))
    )
    model(images)
    hook.remove()
    length = torch.cat(lengths)
    return (length > times * length.median()).float().mean().item()


def curve(history: list[dict], name: str) -> tuple[list[int], list[float]]:
    """The steps at which the log has a value, and the values."""
    lines = [line for line in history if name in line]
    return [line["step"] for line in lines], [line[name] for line in lines]
