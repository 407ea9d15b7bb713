"""Evaluation of the part `recurrent`: accuracy, prediction errors, and the gradient through time."""

import torch
from torch import Tensor, nn

from lessons.lesson_00_foundations.recurrent.experiment import recall
from lessons.lesson_00_foundations.recurrent.experiment.gradients import gradient_through_time
from lessons.lesson_00_foundations.recurrent.experiment.time_series import linear_prediction, relative_error
from lessons.lesson_00_foundations.recurrent.model import Recurrent, SentenceClassifier

GRADIENT_SEQUENCES = 32
LINEAR_LAGS = 16
"""A usual number of past values for linear prediction."""


@torch.no_grad()
def accuracy(model: nn.Module, *inputs_and_labels: Tensor) -> float:
    """Return the fraction of rows whose largest logit is the label's; the labels are the last argument."""
    model.eval()
    device = next(model.parameters()).device
    *inputs, labels = (tensor.to(device) for tensor in inputs_and_labels)
    return (model(*inputs).argmax(dim=1) == labels).float().mean().item()


def recall_gradient(layer: Recurrent, lag: int, seed: int) -> list[float]:
    """Return the relative gradient norm by the state after each step, on sequences of the recall task."""
    inputs, _ = recall.sequences(GRADIENT_SEQUENCES, lag, torch.Generator().manual_seed(seed))
    return gradient_through_time(layer, inputs)


@torch.no_grad()
def last_value_error(model: nn.Module, windows: Tensor, std: float) -> float:
    """Return the relative error of the prediction of each window's last value."""
    windows = windows.to(next(model.parameters()).device)
    return relative_error(model(windows[:, :-1])[:, -1], windows[:, -1], std)


def linear_error(training: Tensor, test: Tensor, std: float) -> float:
    """Return the relative error of linear prediction, from a usual number of past values or from the whole window."""
    errors = []
    for lags in (LINEAR_LAGS, test.shape[1] - 1):
        predictions = linear_prediction(training[:, -lags - 1 :], test[:, -lags - 1 :])
        errors.append(relative_error(predictions, test[:, -1], std))
    return min(errors)


@torch.no_grad()
def praise_by_word(model: SentenceClassifier, token_ids: Tensor) -> list[float]:
    """Return after each word of one sentence the probability of praise minus that of blame."""
    differences = []
    for count in range(1, token_ids.shape[1] + 1):
        blame, praise = model(token_ids[:, :count], torch.tensor([count])).softmax(dim=-1)[0].tolist()
        differences.append(praise - blame)
    return differences
