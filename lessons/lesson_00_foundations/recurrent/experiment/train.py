"""Training of the part `recurrent`: recall a bit, predict a time series, classify praise and blame."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_00_foundations.cnn.model import count_parameters
from lessons.lesson_00_foundations.recurrent.experiment import recall, sentiment, time_series
from lessons.lesson_00_foundations.recurrent.experiment.evaluate import (
    LINEAR_LAGS,
    accuracy,
    last_value_error,
    linear_error,
    recall_gradient,
)
from lessons.lesson_00_foundations.recurrent.model import (
    Predictor,
    SentenceClassifier,
    SequenceClassifier,
    rnn_width_of_equal_size,
)
from shared.course.context import RunContext
from shared.training import Batches, Evaluation, TrainingConfig, curve_from_history, train

HIDDEN = 32
"""Width of the LSTMs; RNNs are wider, so that all have equally many parameters."""
EMBEDDING_WIDTH = 16
EVALUATIONS = 10
"""Number of evaluations during training."""
EVALUATED_ROWS = 200
"""Number of held-out rows evaluated during training; the final evaluation uses all."""

GRADIENT_STEPS = 100
"""Number of steps over which the gradient of an untrained network is measured."""
SERIES_LENGTH, WINDOW = 1500, 48


def width(layer_type: str, inputs: int) -> int:
    """Return the width at which a layer of this type has as many parameters as the LSTM."""
    return HIDDEN if layer_type.startswith("lstm") else rnn_width_of_equal_size(inputs, HIDDEN)


def training_config(steps: int, learning_rate: float, seed: int) -> TrainingConfig:
    """Return the recipe that all trainings of this part share."""
    return TrainingConfig(
        steps=steps,
        learning_rate=learning_rate,
        warmup_steps=steps // 10,
        betas=(0.9, 0.99),
        weight_decay=0.0,
        seed=seed,
        log_every=max(1, steps // 20),
    )


def classification_loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Return the cross-entropy of the model's logits and the labels, the last tensor of the batch."""
    *inputs, labels = batch
    return F.cross_entropy(model(*inputs), labels)


# ── Recall a bit ──────────────────────────────────────────────────────────────────────────────────────────────────────


def train_on_recall(context: RunContext, *, steps: int, layer_type: str, lags: list[int]) -> dict:
    """Train one network per lag to recall the first bit `lag` steps later; measure it on new sequences."""
    accuracies, curves = [], []
    for lag in lags:
        model, curve = _train_on_lag(context, steps, layer_type, lag)
        accuracies.append(accuracy(model, *recall.held_out_sequences(lag)))
        curves.append(curve)
    torch.manual_seed(context.seed)
    untrained = _recall_model(layer_type)
    return {
        "lags": lags,
        "accuracies": accuracies,
        "accuracy_curves": curves,
        "parameters": count_parameters(untrained),
        "accuracy_longest_lag": accuracies[-1],
        "mean_accuracy": sum(accuracies) / len(lags),
        "gradient_untrained": recall_gradient(untrained.layer, GRADIENT_STEPS, context.seed),
        "gradient_trained": recall_gradient(model.cpu().layer, lags[-1], context.seed),
    }


def _recall_model(layer_type: str) -> SequenceClassifier:
    return SequenceClassifier(layer_type, recall.INPUTS, width(layer_type, recall.INPUTS), 2)


def _train_on_lag(context: RunContext, steps: int, layer_type: str, lag: int) -> tuple[nn.Module, tuple]:
    torch.manual_seed(context.seed)
    few = [tensor[:EVALUATED_ROWS] for tensor in recall.held_out_sequences(lag)]
    result = train(
        _recall_model(layer_type),
        recall.training_batches(lag, context.seed, 64),
        classification_loss,
        training_config(steps, 5e-3, context.seed),
        run=context.subfolder(f"lag-{lag}").run_options(label=f"{context.folder.name}, lag {lag}"),
        evaluation=Evaluation(lambda model: {"accuracy": accuracy(model, *few)}, every=max(1, steps // EVALUATIONS)),
    )
    return result.model, curve_from_history(result.history, "evaluation/accuracy")


# ── Predict a time series ─────────────────────────────────────────────────────────────────────────────────────────────


def train_on_time_series(context: RunContext, *, steps: int, layer_type: str) -> dict:
    """Train a network to predict the next value of a chaotic series; measure it on a series from another start.

    Errors are those of each window's last value, which the baselines predict too, in standard deviations.
    """
    training, test = (
        time_series.windows(time_series.mackey_glass(SERIES_LENGTH, seed), WINDOW + 1)
        for seed in (2 * context.seed, 2 * context.seed + 1)
    )
    std, few = training.std().item(), test[:: len(test) // EVALUATED_ROWS]
    torch.manual_seed(context.seed)
    model = Predictor(layer_type, width(layer_type, 1))
    result = train(
        model,
        Batches(training, batch_size=64, seed=context.seed),
        next_value_loss,
        training_config(steps, 1e-2, context.seed),
        run=context.run_options(),
        evaluation=Evaluation(
            lambda model: {"error": last_value_error(model, few, std)}, every=max(1, steps // EVALUATIONS)
        ),
    )
    return {
        "error": last_value_error(result.model, test, std),
        "last_value_error": time_series.relative_error(test[:, -2], test[:, -1], std),
        "linear_error": linear_error(training, test, std),
        "parameters": count_parameters(model),
        "error_curve": curve_from_history(result.history, "evaluation/error"),
        "loss_curve": curve_from_history(result.history, "loss"),
    }


def next_value_loss(model: nn.Module, windows: Tensor) -> Tensor:
    """Return the mean squared error of the predictions, without those after the first few values of a window."""
    predictions = model(windows[:, :-1])
    return ((predictions - windows[:, 1:]) ** 2)[:, LINEAR_LAGS // 2 :].mean()


# ── Classify praise and blame ─────────────────────────────────────────────────────────────────────────────────────────


def train_on_sentiment(context: RunContext, *, steps: int, layer_type: str) -> dict:
    """Train a recurrent classifier of sentences; measure it on seen and unseen pairs of negation and opinion."""
    training, test_seen, test_unseen = sentiment.load_splits(context.seed)
    vocabulary = sentiment.Vocabulary([*training.texts, *test_seen.texts, *test_unseen.texts])
    torch.manual_seed(context.seed)
    model = SentenceClassifier(layer_type, len(vocabulary), EMBEDDING_WIDTH, width(layer_type, EMBEDDING_WIDTH))
    tests = {
        "accuracy": (*vocabulary.encode(test_unseen.texts), test_unseen.labels),
        "accuracy_seen": (*vocabulary.encode(test_seen.texts), test_seen.labels),
    }
    batches = Batches(*vocabulary.encode(training.texts), training.labels, batch_size=64, seed=context.seed)
    return _fit_classifier(context, model, batches, tests, steps)


def train_on_word_counts(context: RunContext, *, steps: int, bigrams: bool) -> dict:
    """Train a linear classifier on counts of words, or of words and pairs of neighboring words."""
    training, test_seen, test_unseen = sentiment.load_splits(context.seed)
    texts = [split.texts for split in (training, test_seen, test_unseen)]
    if bigrams:
        texts = [sentiment.add_bigrams(part) for part in texts]
    vocabulary = sentiment.Vocabulary([text for part in texts for text in part])
    training_counts, seen_counts, unseen_counts = (
        sentiment.bag_of_words(vocabulary.encode(part)[0], len(vocabulary)) for part in texts
    )
    torch.manual_seed(context.seed)
    model = nn.Linear(len(vocabulary), 2)
    tests = {"accuracy": (unseen_counts, test_unseen.labels), "accuracy_seen": (seen_counts, test_seen.labels)}
    batches = Batches(training_counts, training.labels, batch_size=64, seed=context.seed)
    return _fit_classifier(context, model, batches, tests, steps)


def _fit_classifier(context: RunContext, model: nn.Module, batches: Callable, tests: dict, steps: int) -> dict:
    """Train a classifier of sentences; return its accuracy on each test by name, and the curves."""
    few = {name: [tensor[:EVALUATED_ROWS] for tensor in test] for name, test in tests.items()}
    result = train(
        model,
        batches,
        classification_loss,
        training_config(steps, 1e-2, context.seed),
        run=context.run_options(),
        evaluation=Evaluation(
            lambda model: {name: accuracy(model, *test) for name, test in few.items()},
            every=max(1, steps // EVALUATIONS),
        ),
    )
    return {name: accuracy(result.model, *test) for name, test in tests.items()} | {
        "parameters": count_parameters(model),
        "accuracy_curve": curve_from_history(result.history, "evaluation/accuracy"),
        "loss_curve": curve_from_history(result.history, "loss"),
    }
