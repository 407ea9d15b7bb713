"""From one differentiable number to a network that classifies digits, in pure Python.

First reverse-mode differentiation in forty lines of scalars; then the same on tensors (`shared.stdlib`), on which every
reference of this course is built; then layers, a loss, an optimizer and a training loop:

    python -S -m lessons.lesson_00_foundations.autograd.reference [--quick] [--seed N]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from operator import eq
from random import Random

from shared.stdlib import autograd, digits
from shared.stdlib.functional import cross_entropy, log_sum_exp
from shared.stdlib.nn import Linear, Module
from shared.stdlib.optim import SGD
from shared.stdlib.output import run_program
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import shuffled_batches, train

# ── A differentiable number ───────────────────────────────────────────────────────────────────────────────────────────


class Value:
    """Store a number, the numbers it was computed from, and its local gradient with respect to each of them."""

    def __init__(
        self, data: float, name: str = "", parents: tuple[Value, ...] = (), local_gradients: tuple[float, ...] = ()
    ):
        self.data, self.name = data, name
        self.parents, self.local_gradients = parents, local_gradients
        self.grad = 0.0

    def __add__(self, other: Value) -> Value:
        return Value(self.data + other.data, "+", (self, other), (1.0, 1.0))

    def __mul__(self, other: Value) -> Value:
        return Value(self.data * other.data, "×", (self, other), (other.data, self.data))

    def tanh(self) -> Value:
        y = math.tanh(self.data)
        return Value(y, "tanh", (self,), (1.0 - y * y,))

    def backward(self) -> None:
        """Set `grad` of every ancestor to the gradient of this number with respect to it (the chain rule, backward)."""
        # exercise 0.1: the chain rule
        self.grad = 1.0
        for node in reversed(topological_order(self)):
            for parent, local_gradient in zip(node.parents, node.local_gradients, strict=True):
                # Gradients add up: a number that is used twice affects the output along two paths.
                parent.grad += local_gradient * node.grad
        # end exercise


def topological_order(output: Value) -> list[Value]:
    """Return `output` and all its ancestors, each after its own parents."""
    order: list[Value] = []

    def visit(node: Value) -> None:
        if node not in order:
            for parent in node.parents:
                visit(parent)
            order.append(node)

    visit(output)
    return order


def neuron(inputs: Sequence[Value], weights: Sequence[Value], bias: Value) -> Value:
    """Return tanh(w · x + b), the output of one neuron."""
    total = bias
    for x, weight in zip(inputs, weights, strict=True):
        total = total + x * weight
    return total.tanh()


def neuron_gradients(inputs: Tensor, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a neuron's output [1] and its gradients with respect to inputs [n], weights [n] and bias [1]."""
    x, w = ([Value(number) for number in tensor.data] for tensor in (inputs, weights))
    b = Value(bias.data[0])
    output = neuron(x, w, b)
    output.backward()
    return (
        Tensor([output.data], (1,)),
        *(Tensor([value.grad for value in group], (len(group),)) for group in (x, w, [b])),
    )


def square_and_gradient(number: Tensor) -> tuple[Tensor, Tensor]:
    """Return x · x and its gradient with respect to x, both [1]; the same number is used twice in one product."""
    x = Value(number.data[0])
    output = x * x
    output.backward()
    return Tensor([output.data], (1,)), Tensor([x.grad], (1,))


def fourth_power_and_gradient(number: Tensor) -> tuple[Tensor, Tensor]:
    """Return (x · x) · (x · x) and its gradient with respect to x, both [1]; the square is computed once and reused."""
    x = Value(number.data[0])
    square = x * x
    output = square * square
    output.backward()
    return Tensor([output.data], (1,)), Tensor([x.grad], (1,))


def graph_lines(output: Value, level: int = 0) -> list[str]:
    """Return the computation as an indented tree: each number, the operation that made it, and its gradient."""
    lines = [f"{'  ' * level}{output.name:<4} = {output.data:7.3f}   gradient {output.grad:7.3f}"]
    return lines + [line for parent in output.parents for line in graph_lines(parent, level + 1)]


# ── Testing a gradient ────────────────────────────────────────────────────────────────────────────────────────────────


def finite_differences(
    function: Callable[[list[float]], float], inputs: list[float], step: float = 1e-5
) -> list[float]:
    """Estimate the gradient of `function` at `inputs` by central differences, two evaluations per input.

    The error falls with step², since terms of even order cancel. Below a step of about 1e-6 rounding errors dominate.
    This is the right tool for a test, and far too slow for training a million weights.
    """
    gradient = []
    for index, number in enumerate(inputs):
        plus, minus = ([*inputs[:index], number + change, *inputs[index + 1 :]] for change in (step, -step))
        gradient.append((function(plus) - function(minus)) / (2 * step))
    return gradient


# ── A network, a loss, and training ───────────────────────────────────────────────────────────────────────────────────


class MultilayerPerceptron(Module):
    """Classify images [batch, 64] with one hidden layer of `mlp_dim` units; return logits [batch, 10]."""

    def __init__(self, mlp_dim: int, random: Random):
        self.first = Linear(digits.SIDE**2, mlp_dim, random)
        self.second = Linear(mlp_dim, digits.CLASSES, random)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(images).tanh())


def cross_entropy_gradient(logits: Tensor, labels: Sequence[int]) -> Tensor:
    """Return the gradient of the mean cross-entropy with respect to the logits [batch, classes].

    It is (softmax − one-hot) / batch, derived by hand.
    """
    batch, classes = logits.shape
    gradient = []
    for row, label in zip(logits.tolist(), labels, strict=True):
        # exercise 0.2: the gradient of cross-entropy
        total = log_sum_exp(row)
        gradient += [(math.exp(x - total) - (index == label)) / batch for index, x in enumerate(row)]
        # end exercise
    return Tensor(gradient, (batch, classes))


def images_to_tensor(images: list[list[int]]) -> Tensor:
    """Return digits as [batch, 64], with ink scaled to 0…1."""
    return Tensor(
        [value / digits.MAX_PIXEL for image in images for value in image], (len(images), digits.SIDE * digits.SIDE)
    )


MLP_DIM, BATCH, LEARNING_RATE, MOMENTUM = 48, 32, 0.1, 0.9
STEPS, QUICK_STEPS = 1500, 150


def fit(model: MultilayerPerceptron, training: digits.Digits, steps: int, random: Random) -> list[float]:
    """Train the model with momentum and return the loss at each step; `shared.stdlib.training.train` is the loop."""
    batches = shuffled_batches(len(training.images), BATCH, steps, random)

    def loss_at(step: int) -> Tensor:
        batch = training.subset(batches[step])
        return cross_entropy(model(images_to_tensor(batch.images)), batch.labels)

    return train(model, loss_at, SGD(model.parameters().values(), LEARNING_RATE, MOMENTUM), steps, label="MLP")


def accuracy(predictions: list[int], labels: list[int]) -> float:
    """Return the fraction of predictions that equal their labels."""
    return sum(map(eq, predictions, labels)) / len(labels)


def predict(model: MultilayerPerceptron, images: list[list[int]]) -> list[int]:
    """Return the digit with the largest logit for each image."""
    with autograd.no_grad():
        logits = model(images_to_tensor(images))
    return [row.index(max(row)) for row in logits.tolist()]


def print_neuron_example() -> None:
    """Print the graph of one neuron with all gradients, and their largest difference from central differences."""
    x, w = [Value(0.5, "x₁"), Value(-1.0, "x₂")], [Value(0.8, "w₁"), Value(0.3, "w₂")]
    b = Value(0.1, "b")
    output = neuron(x, w, b)
    output.backward()
    print("one neuron, tanh(w₁x₁ + w₂x₂ + b), and the gradient of its output with respect to each number:\n")
    print("\n".join(graph_lines(output)))

    def neuron_output(numbers: list[float]) -> float:
        return neuron(*[[Value(n) for n in part] for part in (numbers[:2], numbers[2:4])], Value(numbers[4])).data

    estimates = finite_differences(neuron_output, [value.data for value in (*x, *w, b)])
    worst = max(abs(value.grad - estimate) for value, estimate in zip((*x, *w, b), estimates, strict=True))
    print(f"\nlargest difference from finite differences: {worst:.1e}")


def run(*, steps: int = STEPS, seed: int = 0) -> dict[str, float | int | list[float]]:
    """Train on four fifths of the digits; print and return what is measured on the fifth that `seed` holds out."""
    start = time.perf_counter()
    data, random = digits.load(), Random(seed)
    training, held_out = (data.subset(indices) for indices in digits.train_test_split(len(data.images), 0.2, seed))
    model = MultilayerPerceptron(MLP_DIM, random)
    loss = cross_entropy(model(images_to_tensor(training.images[:BATCH])), training.labels[:BATCH])
    print(
        f"\none batch through the network, as tensors: a graph of {len(autograd.topological_order(loss))} nodes",
        flush=True,
    )
    losses = fit(model, training, steps, random)
    baseline = accuracy(digits.classify_by_nearest_mean(training, held_out.images), held_out.labels)
    measured = accuracy(predict(model, held_out.images), held_out.labels)
    parameters, seconds = sum(len(tensor.data) for tensor in model.parameters().values()), time.perf_counter() - start
    print(f"loss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}")
    print(f"\naccuracy on {len(held_out.labels)} held-out digits (a random fifth, seed {seed})")
    print(f"  nearest class mean   {baseline:6.1%}")
    print(f"  two-layer MLP        {measured:6.1%}   ({parameters:,} parameters, {seconds:.0f} s)")
    return {
        "seed": seed,
        "parameters": parameters,
        "accuracy": measured,
        "baseline_accuracy": baseline,
        "seconds": seconds,
        "losses": losses,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Automatic differentiation and a first network in pure Python.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps instead of {STEPS}")
    parser.add_argument("--seed", type=int, default=0, help="seed of the held-out fifth and of every random draw")
    options = parser.parse_args()
    print_neuron_example()
    run(steps=QUICK_STEPS if options.quick else STEPS, seed=options.seed)


if __name__ == "__main__":
    run_program(main)
