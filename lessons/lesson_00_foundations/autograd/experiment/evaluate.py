"""Checks of the pure-Python engine: whether every gradient is right, and how much time a gradient takes."""

import time
from random import Random
from statistics import median

from lessons.lesson_00_foundations.autograd import reference
from lessons.lesson_00_foundations.autograd.experiment.operators import OPERATORS, gradient_errors
from shared.course.context import RunContext
from shared.stdlib import digits
from shared.stdlib.autograd import no_grad
from shared.stdlib.functional import cross_entropy

REPEATS = 9
"""Number of timed passes; the median counts."""


def check_gradients(context: RunContext) -> dict:
    """Compare every operator's gradient with finite differences and with PyTorch; return the largest differences."""
    random = Random(context.seed)
    errors = [gradient_errors(operator, random) for operator in OPERATORS]
    return {
        "operators": len(errors),
        "finite_difference_error": max(from_differences for from_differences, _ in errors),
        "torch_difference": max(from_torch for _, from_torch in errors),
    }


def measure_gradient_cost(context: RunContext, *, widths: list[int]) -> dict:
    """Measure processor time of a forward pass, and of a forward and backward pass, for networks of several widths."""
    random = Random(context.seed)
    batch = digits.load().subset(list(range(reference.BATCH)))
    images = reference.images_to_tensor(batch.images)
    counts, ratios = [], []
    for width in widths:
        network = reference.MultilayerPerceptron(width, random)
        parameters = network.parameters().values()
        forward_seconds, gradient_seconds = [], []
        for _ in range(REPEATS):
            start = time.process_time()
            with no_grad():
                cross_entropy(network(images), batch.labels)
            forward_seconds.append(time.process_time() - start)
            start = time.process_time()
            cross_entropy(network(images), batch.labels).backward()
            gradient_seconds.append(time.process_time() - start)
        counts.append(sum(len(parameter.data) for parameter in parameters))
        ratios.append(median(gradient_seconds) / median(forward_seconds))
    return {"parameters": counts, "cost_in_forward_passes": ratios, "largest_cost": max(ratios)}
