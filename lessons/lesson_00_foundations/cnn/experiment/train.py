"""Training of the part `cnn`: shifted digits, stacks with and without shortcuts, and photographs on a GPU."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from data.datasets.load import load
from data.datasets.tensors import crop_and_flip, to_pixels
from lessons.lesson_00_foundations.cnn.experiment.data import (
    CANVAS,
    EVERYWHERE,
    LEFT,
    RIGHT,
    load_digits,
    shift_augmentation,
    shifted_test_digits,
)
from lessons.lesson_00_foundations.cnn.model import MLP, ResNet, count_parameters, mlp_of_equal_size
from shared.course.context import RunContext
from shared.evaluation import accuracy
from shared.training import (
    Batches,
    Evaluation,
    TrainingConfig,
    TrainingResult,
    curve_from_history,
    train,
)

CLASSES = 10
COLUMNS = {"everywhere": EVERYWHERE, "left": LEFT}
EVALUATIONS = 10
"""Number of evaluations during training."""
EVALUATED_DIGITS = 359
"""Number of canvases evaluated during training: each held-out digit once."""


def build_model(name: str) -> nn.Module:
    """Build a model for shifted digits: "cnn", an "mlp" of equal size with two hidden layers, or "softmax regression".

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


def train_on_shifted_digits(context: RunContext, *, steps: int, model: str, positions: str) -> dict:
    """Train a model on digits at random positions, everywhere or in the left half.

    Accuracy is measured at the training positions, and as `accuracy_right` in the right half.
    """
    data, columns = load_digits(), COLUMNS[positions]
    torch.manual_seed(context.seed)
    network = build_model(model)
    batches = Batches(
        data.train, data.train_labels, batch_size=96, seed=context.seed, augment=shift_augmentation(columns)
    )
    measured = fit(context, network, batches, shifted_test_digits(data, columns), steps)
    return measured | {"accuracy_right": accuracy(network, *shifted_test_digits(data, RIGHT))}


def train_deep_network(context: RunContext, *, steps: int, blocks: int, residual: bool) -> dict:
    """Train a narrow network of 2 · blocks + 2 layers, with or without shortcuts, on digits at random positions."""
    data = load_digits()
    torch.manual_seed(context.seed)
    network = ResNet(1, CLASSES, widths=(8,), blocks=blocks, pool=2, residual=residual)
    batches = Batches(
        data.train, data.train_labels, batch_size=64, seed=context.seed, augment=shift_augmentation(EVERYWHERE)
    )
    measured = fit(context, network, batches, shifted_test_digits(data, EVERYWHERE), steps)
    return measured | {"training_loss": measured["loss_curve"][1][-1], "layers": 2 * blocks + 2}


def fit(context: RunContext, network: nn.Module, batches: Callable, test: tuple[Tensor, Tensor], steps: int) -> dict:
    """Train a classifier of digits; return its test accuracy, and the curves of accuracy and loss."""
    config = TrainingConfig(
        steps=steps,
        learning_rate=1e-2,
        warmup_steps=steps // 10,
        betas=(0.9, 0.99),
        seed=context.seed,
        log_every=max(1, steps // 20),
    )
    few = test[0][:EVALUATED_DIGITS], test[1][:EVALUATED_DIGITS]
    evaluation = Evaluation(lambda model: {"accuracy": accuracy(model, *few)}, every=max(1, steps // EVALUATIONS))
    result = train(network, batches, classification_loss, config, run=context.run_options(), evaluation=evaluation)
    return measure(result, test)


def measure(result: TrainingResult, test: tuple[Tensor, Tensor]) -> dict:
    """Return test accuracy, number of parameters, and the curves of accuracy and loss."""
    return {
        "accuracy": accuracy(result.model, *test),
        "parameters": count_parameters(result.model),
        "accuracy_curve": curve_from_history(result.history, "evaluation/accuracy"),
        "loss_curve": curve_from_history(result.history, "loss"),
    }


def classification_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the cross-entropy of the model's logits and the labels."""
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def train_on_photographs(context: RunContext, *, steps: int, depth: int, batch_size: int) -> dict:
    """Train the paper's ResNet of `depth` layers by its section 4.2, with a cosine schedule instead of two drops."""
    dataset = load(context.data)
    train_pixels, test_pixels = (to_pixels(images) for images in (dataset.train_images, dataset.test_images))
    mean = train_pixels.mean(dim=0)  # the paper subtracts the mean image
    torch.manual_seed(context.seed)
    network = ResNet(train_pixels.shape[1], len(dataset.class_names), (16, 32, 64), (depth - 2) // 6)

    def augment(batch: tuple[Tensor, Tensor], generator: Generator) -> tuple[Tensor, Tensor]:
        images, labels = batch
        return crop_and_flip(images, generator), labels

    batches = Batches(
        (train_pixels - mean).to(context.device),
        torch.from_numpy(dataset.train_labels).to(context.device),
        batch_size=batch_size,
        seed=context.seed,
        augment=augment,
    )
    config = TrainingConfig(
        steps=steps,
        learning_rate=0.1,
        optimizer="sgd",
        weight_decay=1e-4,
        warmup_steps=steps // 100,
        clip_norm=None,
        seed=context.seed,
        log_every=max(1, steps // 100),
        checkpoint_every=max(1, steps // 10),
    )
    test = test_pixels - mean, torch.from_numpy(dataset.test_labels)
    evaluation = Evaluation(lambda model: {"accuracy": accuracy(model, *test)}, every=max(1, steps // 20))
    result = train(network, batches, classification_loss, config, run=context.run_options(), evaluation=evaluation)
    return measure(result, test)
