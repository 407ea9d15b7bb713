"""Training of the part `autograd`: the same network in pure Python and PyTorch, and three optimizers compared."""

import math
from collections.abc import Iterable
from random import Random
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_00_foundations.autograd import model, reference
from shared.course.context import RunContext
from shared.stdlib import digits
from shared.stdlib.training import shuffled_batches

OPTIMIZERS = {
    "sgd": lambda parameters, learning_rate: torch.optim.SGD(parameters, learning_rate),
    "momentum": lambda parameters, learning_rate: torch.optim.SGD(parameters, learning_rate, momentum=0.9),
    "adam": torch.optim.Adam,
}


def split_digits(seed: int) -> tuple[digits.Digits, digits.Digits]:
    """Return four fifths of the digits for training, and the random fifth that `seed` holds out."""
    data = digits.load()
    training_rows, held_out_rows = digits.train_test_split(len(data.images), 0.2, seed)
    return data.subset(training_rows), data.subset(held_out_rows)


def pixels(batch: digits.Digits) -> Tensor:
    """Return the images of a batch as [batch, 64] in float64, with ink scaled to 0…1."""
    return torch.tensor(batch.images, dtype=torch.float64) / digits.MAX_PIXEL


def train_reference_and_pytorch(context: RunContext, *, steps: int) -> dict:
    """Train the same weights on the same batches in pure Python and in PyTorch (float64), and compare the losses."""
    random = Random(context.seed)
    training, held_out = split_digits(context.seed)
    plain_model = reference.MultilayerPerceptron(reference.MLP_DIM, random)
    torch_model = model.MultilayerPerceptron(reference.MLP_DIM).double()
    with torch.no_grad():
        for name, weight in torch_model.named_parameters():
            weight.copy_(torch.tensor(plain_model.parameters()[name].data).reshape(weight.shape))

    state = random.getstate()
    plain_losses = reference.fit(plain_model, training, steps, random)
    random.setstate(state)
    batches = shuffled_batches(len(training.images), reference.BATCH, steps, random)
    torch_losses = _fit_in_pytorch(torch_model, (training.subset(rows) for rows in batches))
    return {
        "accuracy": reference.accuracy(reference.predict(plain_model, held_out.images), held_out.labels),
        "torch_accuracy": model.accuracy(torch_model(pixels(held_out)), torch.tensor(held_out.labels)),
        "nearest_mean": reference.accuracy(digits.classify_by_nearest_mean(training, held_out.images), held_out.labels),
        # Rounding differences grow during training, as between any two orders of summation. So only the first
        # steps are compared.
        "loss_difference": max(abs(a - b) for a, b in zip(plain_losses[:100], torch_losses[:100], strict=True)),
        "loss_curve": (list(range(1, steps + 1)), plain_losses),
    }


def _fit_in_pytorch(network: nn.Module, batches: Iterable[digits.Digits]) -> list[float]:
    """Train with the reference's learning rate and momentum; return the loss at each step."""
    optimizer = torch.optim.SGD(network.parameters(), reference.LEARNING_RATE, reference.MOMENTUM)
    losses = []
    for batch in batches:
        loss = F.cross_entropy(network(pixels(batch)), torch.tensor(batch.labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def train_with_optimizer(context: RunContext, *, optimizer: str, learning_rates: list[float], steps: int) -> dict:
    """Train once per learning rate; return the best rate, its final training loss and its loss curve.

    Optimizers are comparable only when each runs at its own best learning rate.
    """
    training, _ = split_digits(context.seed)
    images, labels = pixels(training).float(), torch.tensor(training.labels)
    batches = shuffled_batches(len(labels), reference.BATCH, steps, Random(context.seed))
    curves = {}
    for learning_rate in learning_rates:
        torch.manual_seed(context.seed)
        network = model.MultilayerPerceptron(reference.MLP_DIM)
        updates = OPTIMIZERS[optimizer](network.parameters(), learning_rate)
        curve: tuple[list[int], list[float]] = ([], [])
        for step, rows in enumerate(batches, start=1):
            loss = F.cross_entropy(network(images[rows]), labels[rows])
            updates.zero_grad()
            loss.backward()
            updates.step()
            if step % max(1, steps // 20) == 0:
                with torch.no_grad():
                    curve[0].append(step)
                    curve[1].append(F.cross_entropy(network(images), labels).item())
        curves[learning_rate] = curve
    # Single steps are noisy, so the last quarter is averaged. A diverged run has a non-finite loss and never wins.
    losses = {rate: fmean(curve[1][-5:]) for rate, curve in curves.items()}
    best = min((rate for rate in learning_rates if math.isfinite(losses[rate])), key=losses.__getitem__)
    return {"learning_rate": best, "training_loss": losses[best], "training_loss_curve": curves[best]}
