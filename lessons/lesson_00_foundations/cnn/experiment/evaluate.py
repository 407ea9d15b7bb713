"""Evaluation of the part `cnn`: accuracy, and accuracy by the position of a digit."""

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from lessons.lesson_00_foundations.cnn.experiment.data import POSITIONS, load_digits, place_on_canvas
from shared.evaluation import accuracy

DIGITS_PER_POSITION = 90
"""Number of held-out digits that are placed at every position."""


def accuracy_by_position(model: nn.Module) -> Float[np.ndarray, "rows columns"]:
    """Return the held-out accuracy for every position at which a digit can start."""
    data = load_digits()
    images, labels = data.test[:DIGITS_PER_POSITION], data.test_labels[:DIGITS_PER_POSITION]
    accuracies = np.empty((POSITIONS, POSITIONS))
    for row in range(POSITIONS):
        for column in range(POSITIONS):
            starts = torch.full((len(images),), row), torch.full((len(images),), column)
            accuracies[row, column] = accuracy(model, place_on_canvas(images, *starts), labels)
    return accuracies
