"""Arms with few labels: from scratch, after masked pretraining without labels, and with a convolutional teacher."""

from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from lessons.lesson_01_vit.experiment.data import ImageData, jitter, jitter_batches, load_images, small_config
from lessons.lesson_01_vit.experiment.train import ClassifierRecipe, classification_loss, fit
from lessons.lesson_01_vit.model import (
    ConvolutionalTeacher,
    MaskedAutoencoder,
    MaskedAutoencoderConfig,
    VisionTransformer,
    VisionTransformerConfig,
    hard_distillation_loss,
)
from shared.course.context import RunContext
from shared.evaluation import accuracy
from shared.training import Batches, TrainingConfig, curve_from_history, train

LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class PretrainingRecipe:
    """Describe masked pretraining: the fraction of masked patches and the number of steps."""

    mask_ratio: float
    steps: int


def labeled_batches(images: ImageData, per_class: int, seed: int) -> Batches:
    """Return batches of `per_class` images of each class, selected by `seed` and jittered anew in each batch."""
    order = torch.randperm(len(images.train_labels), generator=torch.Generator().manual_seed(seed))
    shuffled = images.train_labels[order]
    rows = torch.cat([order[shuffled == label][:per_class] for label in shuffled.unique()])
    return Batches(
        images.train[rows],
        images.train_labels[rows],
        batch_size=min(64, len(rows)),
        seed=seed,
        augment=jitter_batches(images),
    )


def unlabeled_batches(images: ImageData, batch_size: int, seed: int) -> Batches:
    """Return batches of all training images without their labels, jittered anew in each batch."""

    def augment(pixels: Tensor, generator: Generator) -> Tensor:
        return images.standardize(jitter(pixels, generator))

    return Batches(images.train, batch_size=batch_size, seed=seed, augment=augment)


# ── From scratch and after masked pretraining ─────────────────────────────────────────────────────────────────────────


def train_from_few_labels(
    context: RunContext,
    *,
    steps: int,
    per_class: int,
    pretraining: dict[str, Any] | None = None,
    **architecture: Any,
) -> dict:
    """Train on a few labeled images: from scratch, or from an encoder pretrained on all images without labels.

    `pretraining` holds the fields of `PretrainingRecipe`.
    """
    images = load_images(context.data)
    torch.manual_seed(context.seed)
    model = VisionTransformer(small_config(images, **architecture))
    measured = {}
    if pretraining is not None and model.head is not None:
        encoder, measured = pretrain(context, images, model.config, PretrainingRecipe(**pretraining))
        head = {f"head.{name}": weight for name, weight in model.head.state_dict().items()}
        model.load_state_dict(encoder.state_dict() | head)
    recipe = ClassifierRecipe(steps, LEARNING_RATE, classification_loss)
    batches, test = labeled_batches(images, per_class, context.seed), (images.standardized_test, images.test_labels)
    return measured | fit(context.subfolder("training"), model, batches, recipe, test)


def autoencoder(config: VisionTransformerConfig, mask_ratio: float) -> MaskedAutoencoder:
    """Build the lesson's autoencoder; its target is raw pixels, because 2×2 patches have little contrast."""
    return MaskedAutoencoder(
        MaskedAutoencoderConfig(
            encoder=replace(config, classes=0),
            decoder_width=48,
            decoder_depth=1,
            decoder_heads=4,
            mask_ratio=mask_ratio,
            normalize=False,
        )
    )


def pretrain(
    context: RunContext, images: ImageData, config: VisionTransformerConfig, recipe: PretrainingRecipe
) -> tuple[VisionTransformer, dict]:
    """Train an autoencoder on all training images, without labels; return its encoder and the loss during training."""
    steps = recipe.steps
    result = train(
        autoencoder(config, recipe.mask_ratio),
        unlabeled_batches(images, 128, context.seed),
        lambda model, pixels: model(pixels)[0],
        TrainingConfig(
            steps=steps,
            learning_rate=2e-3,
            warmup_steps=steps // 10,
            betas=(0.9, 0.95),
            seed=context.seed,
            log_every=25,
        ),
        run=context.subfolder("pretraining").run_options(label=f"{context.folder.name}, masked"),
    )
    return result.model.encoder, {"reconstruction_curve": curve_from_history(result.history, "loss")}


# ── Distillation ──────────────────────────────────────────────────────────────────────────────────────────────────────


def train_distilled(
    context: RunContext,
    *,
    steps: int,
    per_class: int,
    teacher_steps: int,
    unlabeled_images: bool,
    **architecture: Any,
) -> dict:
    """Train a convolutional teacher on a few labeled images, then a ViT on these and the teacher's predictions.

    With `unlabeled_images`, each batch also contains as many images without labels, with the teacher's predictions.
    """
    images = load_images(context.data)
    batches = labeled_batches(images, per_class, context.seed)
    teacher = train_teacher(context, images, batches, teacher_steps)

    def labeled_loss(student: VisionTransformer, batch: tuple[Tensor, Tensor]) -> Tensor:
        pixels, labels = batch
        with torch.no_grad():
            teacher_logits = teacher(pixels)
        return hard_distillation_loss(*student.head_logits(pixels), labels, teacher_logits)

    def mixed_loss(student: VisionTransformer, batch: tuple[tuple[Tensor, Tensor], Tensor]) -> Tensor:
        labeled, pixels = batch
        with torch.no_grad():
            teacher_labels = teacher(pixels).argmax(dim=1)
        _, distillation_logits = student.head_logits(pixels)
        return 0.5 * labeled_loss(student, labeled) + 0.5 * F.cross_entropy(distillation_logits, teacher_labels)

    unlabeled = unlabeled_batches(images, batches.batch_size, context.seed)
    torch.manual_seed(context.seed)
    student = VisionTransformer(small_config(images, distillation_token=True, **architecture))
    measured = fit(
        context.subfolder("training"),
        student,
        (lambda step: (batches(step), unlabeled(step))) if unlabeled_images else batches,
        ClassifierRecipe(steps, LEARNING_RATE, mixed_loss if unlabeled_images else labeled_loss),
        (images.standardized_test, images.test_labels),
    )
    return measured | {
        "teacher_accuracy": accuracy(teacher, images.standardized_test, images.test_labels),
        "teacher_agreement": fmean(accuracy(teacher, *batches(step)) for step in range(batches.per_epoch * 10)),
    }


def train_teacher(context: RunContext, images: ImageData, batches: Batches, steps: int) -> ConvolutionalTeacher:
    """Train a convolutional classifier on labeled batches."""
    torch.manual_seed(context.seed)
    return train(
        ConvolutionalTeacher(images.train.shape[1], len(images.class_names)),
        batches,
        classification_loss,
        TrainingConfig(steps=steps, learning_rate=3e-3, warmup_steps=steps // 10, seed=context.seed, log_every=25),
        run=context.subfolder("teacher").run_options(label=f"{context.folder.name}, teacher"),
    ).model
