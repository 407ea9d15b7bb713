"""Can it tell an image from the same patches shuffled? The arms that show what positions are for."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lessons.lesson_01_vit.experiment.augmentation import jitter, shuffle_patches
from lessons.lesson_01_vit.experiment.classifier import fit
from lessons.lesson_01_vit.experiment.images import read_images, small_config
from lessons.lesson_01_vit.model import VisionTransformer
from shared.training import Batches


def train_order_detector(
    *, seed: int, data: str, device: str, folder: Path, resume: bool, steps: int, **architecture
) -> dict:
    """Train a ViT to tell an intact image from one with its patches in a random order; measure it on held-out images."""
    images = read_images(data)
    torch.manual_seed(seed)
    config = replace(small_config(images, **architecture), classes=2)

    def augment(pixels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return intact_and_shuffled(images.standardize(jitter(pixels, generator)), config.patch_size, generator)

    test, labels = intact_and_shuffled(images.standardized_test, config.patch_size, torch.Generator().manual_seed(seed))
    return fit(
        VisionTransformer(config), Batches(images.train, batch_size=32, seed=seed, augment=augment), test, labels,
        steps=steps, learning_rate=2e-3, seed=seed, device=device, folder=folder, resume=resume,
    )  # fmt: skip


def intact_and_shuffled(images: Tensor, patch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each image and, right behind it, its patches in a random order; labels 0 and 1."""
    both = torch.stack([images, shuffle_patches(images, patch_size, generator)], dim=1).flatten(0, 1)
    return both, torch.arange(2, device=images.device).repeat(len(images))
