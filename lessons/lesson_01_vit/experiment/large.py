"""The arm for a GPU: a Vision Transformer on small colour photographs, from scratch, with no convolution and no other data.

CIFAR-10's 50,000 images are few for a model that is born knowing nothing of pixels. What makes up for it is a patch
of 4×4, rotary positions that tell distance in both directions, images that are never shown twice alike
(crop, flip, mixup and CutMix), Muon, stochastic depth, and an average of the weights.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_01_vit.experiment.augmentation import crop_and_flip, mixed
from lessons.lesson_01_vit.experiment.classifier import accuracy
from lessons.lesson_01_vit.experiment.images import read_images, small_config
from lessons.lesson_01_vit.model import VisionTransformer
from shared.training import Batches, Evaluation, RunOptions, TrainingConfig, curve_from_history, train


def train_large(
    *,
    seed: int,
    data: str,
    device: str,
    folder: Path,
    resume: bool,
    steps: int,
    batch_size: int,
    learning_rate: float,
    precision: str,
    compiled: bool,
    **architecture,
) -> dict:
    """Train with the strong recipe; measure the averaged model on held-out images."""
    images = read_images(data)
    torch.manual_seed(seed)
    model = VisionTransformer(small_config(images, **architecture))
    classes = len(images.class_names)

    def augment(batch: tuple[Tensor, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        pixels, labels = batch
        pixels = crop_and_flip(images.standardize(pixels), generator, padding=images.train.shape[-1] // 8)
        return mixed(pixels, labels, classes, generator)

    # The whole data set lies on the device, so that no step waits for a copy.
    batches = Batches(
        images.train.to(device), images.train_labels.to(device), batch_size=batch_size, seed=seed, augment=augment
    )
    config = TrainingConfig(
        steps=steps, learning_rate=learning_rate, optimizer="muon", weight_decay=0.05, warmup_steps=steps // 20,
        ema_decay=1 - 1 / (1 + steps / 10), precision=precision, compile=compiled, seed=seed, log_every=50,
        checkpoint_every=max(1, steps // 10),
    )  # fmt: skip
    test = images.standardized_test
    result = train(
        model,
        batches,
        soft_label_loss,
        config,
        run=RunOptions(
            folder=folder,
            resume=resume,
            device=device,
            label=folder.name,
            tokens_per_step=batch_size * (model.prefix_tokens + model.config.grid[0] * model.config.grid[1]),
        ),
        evaluation=Evaluation(
            lambda trained: {"accuracy": accuracy(trained, test, images.test_labels)}, every=max(1, steps // 20)
        ),
    )
    return {
        "accuracy": accuracy(result.ema, test, images.test_labels),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "accuracy_curve": curve_from_history(result.history, "evaluation/accuracy"),
        "loss_curve": curve_from_history(result.history, "loss"),
    }


def soft_label_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of the logits and a distribution over classes."""
    images, targets = batch
    return F.cross_entropy(model(images).float(), targets)
