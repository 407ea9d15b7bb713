"""Arms that train classifiers: digits with and without positions, the order of patches, and CIFAR-10 on a GPU."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from data.datasets.tensors import crop_and_flip
from lessons.lesson_01_vit.experiment.data import (
    jitter,
    jitter_batches,
    load_images,
    mix,
    shuffle_patches,
    small_config,
)
from lessons.lesson_01_vit.experiment.evaluate import (
    neighbor_similarity,
    outlier_fraction,
    position_similarity,
)
from lessons.lesson_01_vit.model import VisionTransformer
from shared.course.context import RunContext
from shared.evaluation import accuracy
from shared.training import Batches, Evaluation, TrainingConfig, curve_from_history, train

EVALUATIONS = 12
"""How many times accuracy is measured during training."""


@dataclass(frozen=True)
class ClassifierRecipe:
    """Describe how a small classifier is trained; the rest of the recipe is the same for all of the lesson's arms.

    loss  function of (model, batch)
    """

    steps: int
    learning_rate: float
    loss: Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class LargeRecipe:
    """Describe how the large classifier is trained on a GPU."""

    steps: int
    batch_size: int
    learning_rate: float
    precision: Literal["float32", "bfloat16"]
    compiled: bool


# ── Arms ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def train_classifier(context: RunContext, *, steps: int, other_writers: bool = False, **architecture: Any) -> dict:
    """Train a ViT to classify images; measure it on held-out images during training and at the end."""
    images = load_images(context.data, other_writers=other_writers)
    torch.manual_seed(context.seed)
    # Stochastic depth, because three blocks can memorize 1,438 digits.
    model = VisionTransformer(small_config(images, drop_path=0.1, **architecture))
    batches = Batches(
        images.train, images.train_labels, batch_size=128, seed=context.seed, augment=jitter_batches(images)
    )
    recipe = ClassifierRecipe(steps, learning_rate=3e-3, loss=classification_loss)
    measured = fit(context, model, batches, recipe, (images.standardized_test, images.test_labels))
    measured["outlier_fraction"] = outlier_fraction(model, images.standardized_test[:200].to(context.device))
    if model.positions is not None:
        measured["neighbor_similarity"] = neighbor_similarity(position_similarity(model))
    return measured


def train_order_detector(context: RunContext, *, steps: int, **architecture: Any) -> dict:
    """Train a ViT to distinguish intact images from images with shuffled patches; measure it on held-out images."""
    images = load_images(context.data)
    torch.manual_seed(context.seed)
    config = replace(small_config(images, **architecture), classes=2)

    def augment(pixels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        return intact_and_shuffled(images.standardize(jitter(pixels, generator)), config.patch_size, generator)

    generator = torch.Generator().manual_seed(context.seed)
    test = intact_and_shuffled(images.standardized_test, config.patch_size, generator)
    batches = Batches(images.train, batch_size=32, seed=context.seed, augment=augment)
    recipe = ClassifierRecipe(steps, learning_rate=2e-3, loss=classification_loss)
    return fit(context, VisionTransformer(config), batches, recipe, test)


def train_large(context: RunContext, *, architecture: dict[str, Any], **recipe: Any) -> dict:
    """Train a larger ViT on small photographs from scratch; measure the averaged model on held-out images.

    CIFAR-10's 50,000 images are few for a model without convolutions. What compensates: small patches of 4×4 pixels,
    rotary positions, strong augmentation (crop, flip, mixup and CutMix), Muon, stochastic depth, and averaged weights.
    `architecture` holds fields of the model's config, `recipe` those of `LargeRecipe`.
    """
    settings, images = LargeRecipe(**recipe), load_images(context.data)
    torch.manual_seed(context.seed)
    model = VisionTransformer(small_config(images, **architecture))
    classes = len(images.class_names)

    def augment(batch: tuple[Tensor, Tensor], generator: Generator) -> tuple[Tensor, Tensor]:
        pixels, labels = batch
        padding = images.train.shape[-1] // 8
        pixels = crop_and_flip(images.standardize(pixels), generator, padding=padding, mode="reflect")
        return mix(pixels, labels, classes, generator)

    # The whole data set is on the device, so that no step waits for a copy.
    batches = Batches(
        images.train.to(context.device),
        images.train_labels.to(context.device),
        batch_size=settings.batch_size,
        seed=context.seed,
        augment=augment,
    )
    steps, test = settings.steps, images.standardized_test
    config = TrainingConfig(
        steps=steps,
        learning_rate=settings.learning_rate,
        optimizer="muon",
        weight_decay=0.05,
        warmup_steps=steps // 20,
        ema_decay=1 - 1 / (1 + steps / 10),
        precision=settings.precision,
        compile=settings.compiled,
        seed=context.seed,
        log_every=50,
        checkpoint_every=max(1, steps // 10),
    )
    tokens = model.config.prefix_tokens + model.config.grid[0] * model.config.grid[1]
    result = train(
        model,
        batches,
        soft_label_loss,
        config,
        run=context.run_options(tokens_per_step=batches.batch_size * tokens),
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


# ── Parts of the arms ─────────────────────────────────────────────────────────────────────────────────────────────────


def fit(
    context: RunContext,
    model: nn.Module,
    batches: Callable[[int], Any],
    recipe: ClassifierRecipe,
    test: tuple[Tensor, Tensor],
) -> dict:
    """Train a classifier; return its accuracy on `test` (images, labels), and accuracy and loss during training."""
    steps, (images, labels) = recipe.steps, test
    config = TrainingConfig(
        steps=steps,
        learning_rate=recipe.learning_rate,
        warmup_steps=steps // 10,
        betas=(0.9, 0.99),
        seed=context.seed,
        log_every=25,
    )
    # During training, a thousand images are enough.
    subset = slice(0, 1000)
    result = train(
        model,
        batches,
        recipe.loss,
        config,
        run=context.run_options(),
        evaluation=Evaluation(
            lambda trained: {"accuracy": accuracy(trained, images[subset], labels[subset])},
            every=max(1, steps // EVALUATIONS),
        ),
    )
    return {
        "accuracy": accuracy(result.model, images, labels),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "accuracy_curve": curve_from_history(result.history, "evaluation/accuracy"),
        "loss_curve": curve_from_history(result.history, "loss"),
    }


def classification_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the cross-entropy with label smoothing of 0.1 (arXiv:1512.00567, section 7)."""
    images, labels = batch
    return F.cross_entropy(model(images), labels, label_smoothing=0.1)


def soft_label_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the cross-entropy of the logits and target distributions over classes."""
    images, targets = batch
    return F.cross_entropy(model(images).float(), targets)


def intact_and_shuffled(images: Tensor, patch_size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return each image followed by its copy with shuffled patches, and the labels 0 and 1."""
    both = torch.stack([images, shuffle_patches(images, patch_size, generator)], dim=1).flatten(0, 1)
    return both, torch.arange(2, device=images.device).repeat(len(images))
