"""The arms of the part `autograd`: is every gradient right, what does one cost, and does the network learn?"""

import math
import time
from pathlib import Path
from random import Random
from statistics import fmean, median

import torch
from torch.nn import functional as F

from lessons.lesson_00_foundations.autograd import model, reference
from lessons.lesson_00_foundations.autograd.experiment.operators import OPERATORS, errors
from shared.stdlib import digits
from shared.stdlib.autograd import no_grad
from shared.stdlib.functional import cross_entropy
from shared.stdlib.training import shuffled_batches


def check_gradients(*, seed: int, data: str, device: str, folder: Path, resume: bool) -> dict:
    """Every operator of the engine against finite differences and against PyTorch (the largest difference of any)."""
    random = Random(seed)
    found = {operator.name: errors(operator, random) for operator in OPERATORS}
    return {
        "operators": len(found),
        "finite_difference_error": max(pushed for pushed, _ in found.values()),
        "torch_difference": max(torchs for _, torchs in found.values()),
    }


def train_in_both_worlds(*, seed: int, data: str, device: str, folder: Path, resume: bool, steps: int) -> dict:
    """The same network from the same weights on the same batches, once in pure Python and once in PyTorch (float64)."""
    random, everything = Random(seed), digits.load()
    kept, held_out = (everything.subset(rows) for rows in digits.train_test_split(len(everything.images), 0.2, seed))
    ours = reference.MultilayerPerceptron(reference.HIDDEN, random)
    theirs = model.MultilayerPerceptron(reference.HIDDEN).double()
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            weight.copy_(torch.tensor(ours.parameters()[name].data).reshape(weight.shape))

    state = random.getstate()
    losses = reference.fit(ours, kept, steps, random)
    random.setstate(state)
    optimizer = torch.optim.SGD(theirs.parameters(), reference.LEARNING_RATE, reference.MOMENTUM)
    others = []
    for rows in shuffled_batches(len(kept.images), reference.BATCH, steps, random):
        batch = kept.subset(rows)
        loss = F.cross_entropy(theirs(_pixels(batch)), torch.tensor(batch.labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        others.append(loss.item())
    return {
        "accuracy": reference.accuracy(reference.read(ours, held_out.images), held_out.labels),
        "torch_accuracy": model.accuracy(theirs(_pixels(held_out)), torch.tensor(held_out.labels)),
        "nearest_mean": reference.accuracy(digits.classify_by_nearest_mean(kept, held_out.images), held_out.labels),
        # Small differences grow with training, as they do between any two orders of adding: so the first steps are compared.
        "loss_difference": max(abs(a - b) for a, b in zip(losses[:100], others[:100], strict=True)),
        "loss_curve": (list(range(1, steps + 1)), losses),
    }


def _pixels(batch: digits.Digits) -> torch.Tensor:
    return torch.tensor(batch.images, dtype=torch.float64) / digits.MAX_PIXEL


def train_with(
    *, seed: int, data: str, device: str, folder: Path, resume: bool, optimizer: str, rates: list[float], steps: int
) -> dict:
    """The training loss that an optimizer reaches, at the best of several learning rates: a fair race has each at its best."""
    everything = digits.load()
    kept, _ = (everything.subset(rows) for rows in digits.train_test_split(len(everything.images), 0.2, seed))
    pixels, labels = _pixels(kept).float(), torch.tensor(kept.labels)
    curves = {}
    for rate in rates:
        torch.manual_seed(seed)
        network = model.MultilayerPerceptron(reference.HIDDEN)
        make = {
            "sgd": lambda p, lr: torch.optim.SGD(p, lr),
            "momentum": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9),
            "adam": torch.optim.Adam,
        }[optimizer]
        taking_steps = make(network.parameters(), rate)
        curve = ([], [])
        for number, rows in enumerate(shuffled_batches(len(labels), reference.BATCH, steps, Random(seed))):
            loss = F.cross_entropy(network(pixels[rows]), labels[rows])
            taking_steps.zero_grad()
            loss.backward()
            taking_steps.step()
            if (number + 1) % max(1, steps // 20) == 0:
                with torch.no_grad():
                    for line, value in zip(
                        curve, (number + 1, F.cross_entropy(network(pixels), labels).item()), strict=True
                    ):
                        line.append(value)
        curves[rate] = curve
    # The last quarter's mean, since single steps are noisy. A rate too large ends in no number, and is never the best.
    losses = {rate: fmean(curve[1][-5:]) for rate, curve in curves.items()}
    best = min((rate for rate in rates if math.isfinite(losses[rate])), key=losses.get)
    return {"rate": best, "training_loss": losses[best], "training_loss_curve": curves[best]}


def measure_cost(*, seed: int, data: str, device: str, folder: Path, resume: bool, widths: list[int]) -> dict:
    """Processor time of one forward pass, and of a gradient by all weights, at networks of several sizes."""
    random, everything = Random(seed), digits.load()
    batch = everything.subset(list(range(reference.BATCH)))
    images = reference.as_tensor(batch.images)
    counts, ratios = [], []
    for width in widths:
        network = reference.MultilayerPerceptron(width, random)
        parameters = network.parameters().values()
        forward, both = [], []
        for _ in range(9):
            start = time.process_time()
            with no_grad():
                cross_entropy(network(images), batch.labels)
            forward.append(time.process_time() - start)
            start = time.process_time()
            cross_entropy(network(images), batch.labels).backward()
            both.append(time.process_time() - start)
        counts.append(sum(len(parameter.data) for parameter in parameters))
        ratios.append(median(both) / median(forward))
    return {"parameters": counts, "cost_in_forward_passes": ratios, "largest_cost": max(ratios)}
