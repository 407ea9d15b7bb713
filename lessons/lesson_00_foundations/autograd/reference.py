"""From one number that remembers where it came from to a network that reads digits, in pure Python.

Reverse-mode differentiation in forty lines of scalars; the same on tensors (`shared.stdlib`), which is what every
reference of this course stands on; then layers, a loss, an optimizer and a loop around it:

    python -S -m lessons.lesson_00_foundations.autograd.reference [--quick] [--seed N]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from operator import eq
from random import Random

from shared.stdlib import digits
from shared.stdlib.autograd import no_grad, topological_order
from shared.stdlib.functional import cross_entropy, log_sum_exp
from shared.stdlib.nn import Linear, Module
from shared.stdlib.optim import SGD
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import shuffled_batches, train

# ── One number ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Value:
    """A number that knows which numbers it was made from, and how fast it changes with each of them."""

    def __init__(self, data: float, name: str = "", parents: tuple[Value, ...] = (), slopes: tuple[float, ...] = ()):
        self.data, self.name = data, name
        self.parents, self.slopes = parents, slopes
        self.grad = 0.0

    def __add__(self, other: Value) -> Value:
        return Value(self.data + other.data, "+", (self, other), (1.0, 1.0))

    def __mul__(self, other: Value) -> Value:
        return Value(self.data * other.data, "×", (self, other), (other.data, self.data))

    def tanh(self) -> Value:
        bent = math.tanh(self.data)
        return Value(bent, "tanh", (self,), (1.0 - bent * bent,))

    def backward(self) -> None:
        """Fill `grad` of everything that led here: how fast this number changes with it (the chain rule, backwards)."""
        # exercise 0.1: the chain rule
        self.grad = 1.0
        for node in reversed(ancestors_first(self)):
            for parent, slope in zip(node.parents, node.slopes, strict=True):
                # Adding, because a number used twice changes the outcome in two ways.
                parent.grad += slope * node.grad
        # end exercise


def ancestors_first(outcome: Value) -> list[Value]:
    """Everything that led to `outcome`, each after all that it was made from."""
    order: list[Value] = []

    def visit(node: Value) -> None:
        if node not in order:
            for parent in node.parents:
                visit(parent)
            order.append(node)

    visit(outcome)
    return order


def neuron(inputs: Sequence[Value], weights: Sequence[Value], bias: Value) -> Value:
    """tanh(w · x + b): the smallest network there is."""
    total = bias
    for x, weight in zip(inputs, weights, strict=True):
        total = total + x * weight
    return total.tanh()


def neuron_gradients(inputs: Tensor, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A neuron's output [1], and how it changes with inputs [n], weights [n] and bias [1], number by number."""
    x, w = ([Value(number) for number in given.data] for given in (inputs, weights))
    b = Value(bias.data[0])
    outcome = neuron(x, w, b)
    outcome.backward()
    return (
        Tensor([outcome.data], (1,)),
        *(Tensor([value.grad for value in group], (len(group),)) for group in (x, w, [b])),
    )


def square_and_its_gradient(number: Tensor) -> tuple[Tensor, Tensor]:
    """x · x and how it changes with x, both [1]: the same number twice in one product."""
    x = Value(number.data[0])
    outcome = x * x
    outcome.backward()
    return Tensor([outcome.data], (1,)), Tensor([x.grad], (1,))


def graph_lines(outcome: Value, depth: int = 0) -> list[str]:
    """The computation as an indented tree: each number, how it was made, and its gradient."""
    lines = [f"{'  ' * depth}{outcome.name:<4} = {outcome.data:7.3f}   gradient {outcome.grad:7.3f}"]
    return lines + [line for parent in outcome.parents for line in graph_lines(parent, depth + 1)]


# ── Is it right? ──────────────────────────────────────────────────────────────────────────────────────────────────────


def finite_differences(function: Callable[[list[float]], float], at: list[float], step: float = 1e-5) -> list[float]:
    """The gradient without any theory: push each number a little up and a little down, and look what happens.

    The error falls with step², since the terms of even order cancel between up and down; below 1e-6 or so rounding takes
    over. It needs two evaluations for every number: right for a test, hopeless for a million weights.
    """
    slopes = []
    for place, number in enumerate(at):
        up, down = ([*at[:place], number + push, *at[place + 1 :]] for push in (step, -step))
        slopes.append((function(up) - function(down)) / (2 * step))
    return slopes


# ── Layers, a loss, a step ────────────────────────────────────────────────────────────────────────────────────────────


class MultilayerPerceptron(Module):
    """Images [batch, 64] → logits [batch, 10], through one layer of `hidden` neurons."""

    def __init__(self, hidden: int, random: Random):
        self.first = Linear(digits.SIDE**2, hidden, random)
        self.second = Linear(hidden, digits.CLASSES, random)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(images).tanh())


def cross_entropy_gradient(logits: Tensor, labels: Sequence[int]) -> Tensor:
    """How the mean cross-entropy changes with each of the logits [batch, classes], by hand: (softmax − one-hot) / batch."""
    batch, classes = logits.shape
    gradient = []
    for row, label in zip(logits.tolist(), labels, strict=True):
        # exercise 0.2: the gradient of cross-entropy
        total = log_sum_exp(row)
        gradient += [(math.exp(x - total) - (place == label)) / batch for place, x in enumerate(row)]
        # end exercise
    return Tensor(gradient, (batch, classes))


def as_tensor(images: list[list[int]]) -> Tensor:
    """Digits as [batch, 64], ink from 0 to 1."""
    return Tensor(
        [value / digits.MAX_PIXEL for image in images for value in image], (len(images), digits.SIDE * digits.SIDE)
    )


HIDDEN, BATCH, LEARNING_RATE, MOMENTUM = 48, 32, 0.1, 0.9
STEPS, QUICK_STEPS = 1500, 150


def fit(model: MultilayerPerceptron, training: digits.Digits, steps: int, random: Random) -> list[float]:
    """Guess, measure, walk back, move; the loop itself is `shared.stdlib.training.train`."""
    plan = shuffled_batches(len(training.images), BATCH, steps, random)

    def loss_at(step: int) -> Tensor:
        batch = training.subset(plan[step])
        return cross_entropy(model(as_tensor(batch.images)), batch.labels)

    return train(model, loss_at, SGD(model.parameters().values(), LEARNING_RATE, MOMENTUM), steps, label="MLP")


def accuracy(found: list[int], labels: list[int]) -> float:
    return sum(map(eq, found, labels)) / len(labels)


def read(model: MultilayerPerceptron, images: list[list[int]]) -> list[int]:
    """The digit that the model finds in each image."""
    with no_grad():
        logits = model(as_tensor(images))
    return [row.index(max(row)) for row in logits.tolist()]


def show_a_neuron() -> None:
    x, w = [Value(0.5, "x₁"), Value(-1.0, "x₂")], [Value(0.8, "w₁"), Value(0.3, "w₂")]
    b = Value(0.1, "b")
    outcome = neuron(x, w, b)
    outcome.backward()
    print("a neuron, tanh(w₁x₁ + w₂x₂ + b), and how its output changes with each number:\n")
    print("\n".join(graph_lines(outcome)))

    def output(numbers: list[float]) -> float:
        return neuron(*[[Value(n) for n in part] for part in (numbers[:2], numbers[2:4])], Value(numbers[4])).data

    pushed = finite_differences(output, [value.data for value in (*x, *w, b)])
    worst = max(abs(a.grad - p) for a, p in zip((*x, *w, b), pushed, strict=True))
    print(f"\nlargest difference to pushing each number a little up and down: {worst:.1e}")


def run(*, steps: int = STEPS, seed: int = 0) -> dict[str, float | int | list[float]]:
    """Train on four fifths of the digits, and print and return what is measured on the fifth that `seed` holds out."""
    start = time.perf_counter()
    data, random = digits.load(), Random(seed)
    kept, held_out = (data.subset(indices) for indices in digits.train_test_split(len(data.images), 0.2, seed))
    model = MultilayerPerceptron(HIDDEN, random)
    loss = cross_entropy(model(as_tensor(kept.images[:BATCH])), kept.labels[:BATCH])
    print(f"\none batch through the network, as tensors: a graph of {len(topological_order(loss))} nodes", flush=True)
    losses = fit(model, kept, steps, random)
    result = {
        "seed": seed,
        "parameters": sum(len(tensor.data) for tensor in model.parameters().values()),
        "accuracy": accuracy(read(model, held_out.images), held_out.labels),
        "baseline_accuracy": accuracy(digits.classify_by_nearest_mean(kept, held_out.images), held_out.labels),
        "seconds": time.perf_counter() - start,
        "losses": losses,
    }
    print(f"loss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}")
    print(f"\nheld out: {len(held_out.labels)} digits that it never saw (a random fifth, seed {seed})")
    print(f"  nearest class mean   {result['baseline_accuracy']:6.1%}")
    print(f"  two layers           {result['accuracy']:6.1%}   ({result['parameters']:,} parameters, {result['seconds']:.0f} s)")  # fmt: skip
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Automatic differentiation and a first network in pure Python.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps instead of {STEPS}")
    parser.add_argument("--seed", type=int, default=0, help="what is held out, and every random draw (default 0)")
    options = parser.parse_args()
    show_a_neuron()
    run(steps=QUICK_STEPS if options.quick else STEPS, seed=options.seed)


if __name__ == "__main__":
    main()
