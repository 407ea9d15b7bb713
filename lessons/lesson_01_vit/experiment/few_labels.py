"""Arms with few labels: from scratch, after masked pretraining without labels, and with a convolutional teacher."""

from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_01_vit.experiment.augmentation import jitter
from lessons.lesson_01_vit.experiment.classifier import accuracy, classification_loss, fit, jittered
from lessons.lesson_01_vit.experiment.images import Images, read_images, small_config
from lessons.lesson_01_vit.model import (
    ConvolutionalTeacher,
    MaskedAutoencoder,
    MaskedAutoencoderConfig,
    VisionTransformer,
    VisionTransformerConfig,
    hard_distillation_loss,
)
from shared.training import Batches, RunOptions, TrainingConfig, curve_from_history, train

LEARNING_RATE = 1e-3


def labeled(images: Images, per_class: int, seed: int) -> Batches:
    """Batches of `per_class` images of each class, drawn by `seed`, jittered anew each time."""
    order = torch.randperm(len(images.train_labels), generator=torch.Generator().manual_seed(seed))
    shuffled = images.train_labels[order]
    rows = torch.cat([order[shuffled == label][:per_class] for label in shuffled.unique()])
    return Batches(
        images.train[rows], images.train_labels[rows], batch_size=min(64, len(rows)), seed=seed,
        augment=jittered(images),
    )  # fmt: skip


def unlabeled_batches(images: Images, batch_size: int, seed: int) -> Batches:
    """Batches of all training images without their labels, jittered anew each time."""

    def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
        return images.standardize(jitter(pixels, generator))

    return Batches(images.train, batch_size=batch_size, seed=seed, augment=augment)


def train_from_few_labels(
    *,
    seed: int,
    data: str,
    device: str,
    folder: Path,
    resume: bool,
    steps: int,
    per_class: int,
    mask_ratio: float | None = None,
    pretraining_steps: int = 0,
    **architecture,
) -> dict:
    """Train on a few labeled images: from scratch, or from an autoencoder that saw all images without their labels."""
    images = read_images(data)
    torch.manual_seed(seed)
    model = VisionTransformer(small_config(images, **architecture))
    measured = {}
    if mask_ratio is not None:
        encoder, measured = pretrain_masked(
            images, model.config, mask_ratio, pretraining_steps, seed=seed, device=device,
            folder=folder / "pretraining", resume=resume,
        )  # fmt: skip
        model.load_state_dict(encoder.state_dict() | {f"head.{k}": v for k, v in model.head.state_dict().items()})
    return measured | fit(
        model, labeled(images, per_class, seed), images.standardized_test, images.test_labels, steps=steps,
        learning_rate=LEARNING_RATE, seed=seed, device=device, folder=folder / "training", resume=resume,
    )  # fmt: skip


def autoencoder(config: VisionTransformerConfig, mask_ratio: float) -> MaskedAutoencoder:
    """The autoencoder around the lesson's encoder. It paints pixels as they are: a 2×2 patch has no contrast to speak of."""
    encoder = replace(config, classes=0)
    return MaskedAutoencoder(
        MaskedAutoencoderConfig(
            encoder, decoder_width=48, decoder_depth=1, decoder_heads=4, mask_ratio=mask_ratio, normalize=False
        )
    )


def pretrain_masked(
    images: Images,
    config: VisionTransformerConfig,
    mask_ratio: float,
    steps: int,
    *,
    seed: int,
    device: str,
    folder: Path,
    resume: bool,
) -> tuple[VisionTransformer, dict]:
    """Train an autoencoder on all training images, without labels; return its encoder and how well it painted."""

    result = train(
        autoencoder(config, mask_ratio),
        unlabeled_batches(images, 128, seed),
        lambda model, pixels: model(pixels)[0],
        TrainingConfig(
            steps=steps, learning_rate=2e-3, warmup_steps=steps // 10, betas=(0.9, 0.95), seed=seed, log_every=25
        ),
        run=RunOptions(folder=folder, resume=resume, device=device, label=f"{folder.parent.name}, masked"),
    )
    return result.model.encoder, {"reconstruction_curve": curve_from_history(result.history, "loss")}


def train_distilled(
    *,
    seed: int,
    data: str,
    device: str,
    folder: Path,
    resume: bool,
    steps: int,
    per_class: int,
    teacher_steps: int,
    new_images: bool,
    **architecture,
) -> dict:
    """Train a convolutional teacher on a few labeled images, then a ViT on those and the teacher's decisions.

    With `new_images` the teacher also decides on images whose labels nobody tells, as many in a batch as labeled ones.
    """
    images = read_images(data)
    batches = labeled(images, per_class, seed)
    torch.manual_seed(seed)
    teacher = train(
        ConvolutionalTeacher(images.train.shape[1], len(images.class_names)),
        batches,
        classification_loss,
        TrainingConfig(
            steps=teacher_steps, learning_rate=3e-3, warmup_steps=teacher_steps // 10, seed=seed, log_every=25
        ),
        run=RunOptions(folder=folder / "teacher", resume=resume, device=device, label=f"{folder.name}, teacher"),
    ).model

    def known(student: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        pixels, labels = batch
        with torch.no_grad():
            decisions = teacher(pixels)
        return hard_distillation_loss(*student.head_logits(pixels), labels, decisions)

    def known_and_new(student: nn.Module, batch: tuple[tuple[Tensor, Tensor], Tensor]) -> Tensor:
        labeled_part, pixels = batch
        with torch.no_grad():
            decisions = teacher(pixels).argmax(dim=1)
        _, listening = student.head_logits(pixels)
        return 0.5 * known(student, labeled_part) + 0.5 * F.cross_entropy(listening, decisions)

    unlabeled = unlabeled_batches(images, batches.batch_size, seed)
    torch.manual_seed(seed)
    student = VisionTransformer(small_config(images, distillation_token=True, **architecture))
    measured = fit(
        student, (lambda number: (batches(number), unlabeled(number))) if new_images else batches,
        images.standardized_test, images.test_labels, steps=steps, learning_rate=LEARNING_RATE, seed=seed, device=device,
        folder=folder / "training", resume=resume, loss=known_and_new if new_images else known,
    )  # fmt: skip
    return measured | {
        "teacher_accuracy": accuracy(teacher, images.standardized_test, images.test_labels),
        "teacher_agreement": fmean(accuracy(teacher, *batches(number)) for number in range(batches.per_epoch * 10)),
    }
