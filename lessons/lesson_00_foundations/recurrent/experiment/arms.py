"""What the recurrent part trains: carry a bit, predict a series, tell praise from blame."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_00_foundations.cnn.model import count_parameters
from lessons.lesson_00_foundations.recurrent.experiment import opinions, recall, series
from lessons.lesson_00_foundations.recurrent.model import (
    Predictor,
    SentenceClassifier,
    SequenceClassifier,
    rnn_width_of_equal_size,
)
from shared.training import Batches, Evaluation, RunOptions, TrainingConfig, curve_from_history, train

HIDDEN = 32
"""Width of the LSTMs; the plain networks are as much wider as it takes to have as many parameters."""
EVALUATIONS = 10
"""How often held-out scores are measured along the way."""
FEW = 200
"""How many held-out rows that is done on; in the end all of them count."""

LOOK_BACK = 100
"""Steps over which a fresh network's gradient is followed."""
SERIES_LENGTH, WINDOW, LAGS = 1500, 48, 16
SENTENCES, TESTED = 3000, 1000


def width(kind: str, inputs: int) -> int:
    """How wide a layer of this kind is, so that all kinds have as many parameters."""
    return HIDDEN if kind.startswith("lstm") else rnn_width_of_equal_size(inputs, HIDDEN)


def configuration(steps: int, learning_rate: float, seed: int) -> TrainingConfig:
    return TrainingConfig(
        steps=steps, learning_rate=learning_rate, warmup_steps=steps // 10, betas=(0.9, 0.99), weight_decay=0.0,
        seed=seed, log_every=max(1, steps // 20),
    )  # fmt: skip


def classification_loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Cross-entropy of the logits and the true class, the last of the batch's tensors."""
    *inputs, labels = batch
    return F.cross_entropy(model(*inputs), labels)


@torch.no_grad()
def accuracy(model: nn.Module, *inputs_and_labels: Tensor) -> float:
    """The share of rows whose largest logit is the true class's."""
    model.eval()
    device = next(model.parameters()).device
    *inputs, labels = (tensor.to(device) for tensor in inputs_and_labels)
    return (model(*inputs).argmax(dim=1) == labels).float().mean().item()


# ── Carry a bit ───────────────────────────────────────────────────────────────────────────────────────────────────────


def train_recall(
    *, seed: int, data: str, device: str, folder: Path, resume: bool, steps: int, kind: str, lags: list[int]
) -> dict:
    """Train a network for each lag to tell, `lag` steps later, what the first bit was; measure it on new sequences."""
    found: dict = {"lags": lags, "accuracies": [], "accuracy_curves": []}
    for lag in lags:
        torch.manual_seed(seed)
        model = SequenceClassifier(kind, recall.INPUTS, width(kind, recall.INPUTS), 2)
        test = recall.held_out(lag)
        result = train(
            model,
            recall.batches(lag, seed, 64),
            classification_loss,
            configuration(steps, 5e-3, seed),
            run=RunOptions(
                folder=folder / f"lag-{lag}", resume=resume, device=device, label=f"{folder.name}, {lag} steps back"
            ),
            evaluation=Evaluation(
                lambda trained, few=[part[:FEW] for part in test]: {"accuracy": accuracy(trained, *few)},
                every=max(1, steps // EVALUATIONS),
            ),
        )
        found["accuracies"].append(accuracy(result.model, *test))
        found["accuracy_curves"].append(curve_from_history(result.history, "evaluation/accuracy"))
    torch.manual_seed(seed)
    fresh = SequenceClassifier(kind, recall.INPUTS, width(kind, recall.INPUTS), 2)
    inputs, _ = recall.sequences(32, LOOK_BACK, torch.Generator().manual_seed(seed))
    return found | {
        "parameters": count_parameters(fresh),
        "accuracy_furthest": found["accuracies"][-1],
        "mean_accuracy": sum(found["accuracies"]) / len(lags),
        "gradient_fresh": recall.gradient_through_time(fresh.layer, inputs),
        "gradient_trained": recall.gradient_through_time(
            model.cpu().layer, recall.sequences(32, lags[-1], torch.Generator().manual_seed(seed))[0]
        ),
    }


# ── Predict a series ──────────────────────────────────────────────────────────────────────────────────────────────────


def train_series(*, seed: int, data: str, device: str, folder: Path, resume: bool, steps: int, kind: str) -> dict:
    """Train a network to predict the next value of a chaotic series; measure it on a series from another start.

    Errors are those of the last value of each window, which the rivals predict too, in standard deviations.
    """
    seen, test = (
        series.windows(series.mackey_glass(SERIES_LENGTH, start), WINDOW + 1) for start in (2 * seed, 2 * seed + 1)
    )
    spread, few = seen.std().item(), test[:: len(test) // FEW]
    torch.manual_seed(seed)
    model = Predictor(kind, width(kind, 1))
    result = train(
        model,
        Batches(seen, batch_size=64, seed=seed),
        next_value_loss,
        configuration(steps, 1e-2, seed),
        run=RunOptions(folder=folder, resume=resume, device=device, label=folder.name),
        evaluation=Evaluation(
            lambda trained: {"error": last_error(trained, few, spread)}, every=max(1, steps // EVALUATIONS)
        ),
    )
    # Lags of a width that is usual for linear prediction, and all that the network sees.
    linear = {lags: series.linear_prediction(seen[:, -lags - 1 :], test[:, -lags - 1 :]) for lags in (LAGS, WINDOW)}
    errors = {lags: series.relative_error(guess, test[:, -1], spread) for lags, guess in linear.items()}
    return {
        "error": last_error(result.model, test, spread),
        "last_value_error": series.relative_error(test[:, -2], test[:, -1], spread),
        "linear_error": min(errors.values()),
        "parameters": count_parameters(model),
        "error_curve": curve_from_history(result.history, "evaluation/error"),
        "loss_curve": curve_from_history(result.history, "loss"),
    }


def next_value_loss(model: nn.Module, windows: Tensor) -> Tensor:
    """Mean squared error of the guess of every next value, once a few values have been read."""
    guesses = model(windows[:, :-1])
    return ((guesses - windows[:, 1:]) ** 2)[:, LAGS // 2 :].mean()


@torch.no_grad()
def last_error(model: nn.Module, windows: Tensor, spread: float) -> float:
    """Relative error of the guess of each window's last value."""
    windows = windows.to(next(model.parameters()).device)
    return series.relative_error(model(windows[:, :-1])[:, -1], windows[:, -1], spread)


# ── Tell praise from blame ────────────────────────────────────────────────────────────────────────────────────────────


def read_opinions(seed: int) -> tuple[list[str], Tensor, list[str], Tensor, list[str], Tensor]:
    """Sentences to train on, new ones of seen pairs of negation and opinion, and new ones of unseen pairs; each with labels."""
    both = opinions.sentences(SENTENCES + TESTED, seed)
    # A sentence without a negation could be drawn twice; it may be learned or tested, not both.
    unseen = opinions.sentences(TESTED, seed, unseen=True, without={text for text, _ in both})
    parts = both[:SENTENCES], both[SENTENCES:], unseen
    split = []
    for part in parts:
        split += [[text for text, _ in part], torch.tensor([label for _, label in part])]
    return tuple(split)


def train_sentiment(*, seed: int, data: str, device: str, folder: Path, resume: bool, steps: int, kind: str) -> dict:
    """Train a recurrent reader to tell whether a sentence speaks well; measure it on seen and unseen negations."""
    texts, labels, seen, seen_labels, unseen, unseen_labels = read_opinions(seed)
    vocabulary = opinions.Vocabulary([*texts, *seen, *unseen])
    torch.manual_seed(seed)
    model = SentenceClassifier(kind, len(vocabulary), 16, width(kind, 16))
    tests = {
        "accuracy": (*vocabulary.encode(unseen), unseen_labels),
        "accuracy_seen": (*vocabulary.encode(seen), seen_labels),
    }
    batches = Batches(*vocabulary.encode(texts), labels, batch_size=64, seed=seed)
    return fit_reader(model, batches, tests, steps, seed=seed, device=device, folder=folder, resume=resume)


def train_bag(*, seed: int, data: str, device: str, folder: Path, resume: bool, steps: int, pairs: bool) -> dict:
    """Train the reader that only counts words, or words and pairs of neighbors: one number a word, summed."""
    texts, labels, seen, seen_labels, unseen, unseen_labels = read_opinions(seed)
    if pairs:
        texts, seen, unseen = (opinions.bigrams(part) for part in (texts, seen, unseen))
    vocabulary = opinions.Vocabulary([*texts, *seen, *unseen])

    def counts(part: list[str]) -> Tensor:
        return opinions.bag_of_words(vocabulary.encode(part)[0], len(vocabulary))

    torch.manual_seed(seed)
    model = nn.Linear(len(vocabulary), 2)
    tests = {"accuracy": (counts(unseen), unseen_labels), "accuracy_seen": (counts(seen), seen_labels)}
    batches = Batches(counts(texts), labels, batch_size=64, seed=seed)
    return fit_reader(model, batches, tests, steps, seed=seed, device=device, folder=folder, resume=resume)


def fit_reader(
    model: nn.Module, batches: Callable, tests: dict, steps: int, *, seed: int, device: str, folder: Path, resume: bool
) -> dict:
    """Train a reader of sentences; return its accuracies by the names of the tests, and their curves."""
    fewer = {name: [part[:FEW] for part in test] for name, test in tests.items()}
    result = train(
        model,
        batches,
        classification_loss,
        configuration(steps, 1e-2, seed),
        run=RunOptions(folder=folder, resume=resume, device=device, label=folder.name),
        evaluation=Evaluation(
            lambda trained: {name: accuracy(trained, *few) for name, few in fewer.items()},
            every=max(1, steps // EVALUATIONS),
        ),
    )
    return {name: accuracy(result.model, *test) for name, test in tests.items()} | {
        "parameters": count_parameters(model),
        "accuracy_curve": curve_from_history(result.history, "evaluation/accuracy"),
        "loss_curve": curve_from_history(result.history, "loss"),
    }
