"""Recurrent networks in pure Python: the RNN (Elman 1990) and the LSTM (Hochreiter & Schmidhuber 1997).

First the two cells, one line per equation. Then the gradient of the last output with respect to earlier inputs. Then an
LSTM learns to classify handwritten digits row by row, in about half a minute:

    python -S -m lessons.lesson_00_foundations.recurrent.reference [--quick] [--seed N]
"""

import argparse
import math
import time
from functools import partial
from operator import eq
from random import Random

from shared.stdlib import digits
from shared.stdlib.autograd import no_grad
from shared.stdlib.creation import full, normal, uniform
from shared.stdlib.functional import cross_entropy, linear, sigmoid
from shared.stdlib.nn import Linear, Module
from shared.stdlib.optim import AdamW, warmup_cosine
from shared.stdlib.output import run_program
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import shuffled_batches, train

# ── The cells ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class RNNCell(Module):
    """Compute one step of the plain recurrent network: h' = tanh(W_ih x + b_ih + W_hh h + b_hh).

    x [batch, inputs], state (h,) with h [batch, hidden]. Weights have PyTorch's names and shapes.
    """

    gates = 1

    def __init__(self, inputs: int, hidden: int, random: Random):
        limit, rows = 1.0 / math.sqrt(hidden), self.gates * hidden
        self.weight_ih = uniform((rows, inputs), limit, random, requires_grad=True)
        self.weight_hh = uniform((rows, hidden), limit, random, requires_grad=True)
        self.bias_ih = full((rows,), 0.0, requires_grad=True)
        self.bias_hh = full((rows,), 0.0, requires_grad=True)
        self.hidden = hidden

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """Return the state before the first step: zeros."""
        return (full((batch, self.hidden), 0.0),)

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h,) = state
        return ((linear(x, self.weight_ih, self.bias_ih) + linear(h, self.weight_hh, self.bias_hh)).tanh(),)


class LSTMCell(RNNCell):
    """Compute one step of the LSTM: a cell c with an input gate i, a forget gate f and an output gate o.

    i, f, g, o = σ, σ, tanh, σ of W_ih x + b_ih + W_hh h + b_hh;   c' = f · c + i · g;   h' = o · tanh(c').
    State (h, c). The forget gate is that of Gers, Schmidhuber and Cummins (2000); its bias starts at 1, so that the
    cell initially keeps most of its content.
    """

    gates = 4

    def __init__(self, inputs: int, hidden: int, random: Random):
        super().__init__(inputs, hidden, random)
        self.bias_ih.data = [float(hidden <= row < 2 * hidden) for row in range(4 * hidden)]

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        return full((batch, self.hidden), 0.0), full((batch, self.hidden), 0.0)

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h, c = state
        rows = linear(x, self.weight_ih, self.bias_ih) + linear(h, self.weight_hh, self.bias_hh)
        i, f, g, o = (rows[:, gate * self.hidden : (gate + 1) * self.hidden] for gate in range(4))
        # The update of c is a sum, not a matrix product: the gradient along c is multiplied by f, which can be near 1.
        c = sigmoid(f) * c + sigmoid(i) * g.tanh()
        return sigmoid(o) * c.tanh(), c


def unroll(cell: RNNCell, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Return the state after applying the cell to the inputs, each [batch, inputs], one after the other."""
    state = cell.initial_state(inputs[0].shape[0])
    for x in inputs:
        state = cell(x, state)
    return state


# ── The gradient through time ─────────────────────────────────────────────────────────────────────────────────────────


def gradient_norms(cell: RNNCell, steps: int, random: Random) -> list[float]:
    """Return the norms of the last output's gradient with respect to the inputs `steps`, …, 1, 0 steps before."""
    width = cell.weight_ih.shape[1]
    inputs = [normal((1, width), 1.0, random, requires_grad=True) for _ in range(steps + 1)]
    (unroll(cell, inputs)[0] * normal((1, cell.hidden), 1.0, random)).sum().backward()
    return [math.hypot(*x.grad) for x in inputs]


# ── Classifying digits row by row ─────────────────────────────────────────────────────────────────────────────────────

HIDDEN = 16
BATCH = 16
STEPS, QUICK_STEPS = 900, 90
LEARNING_RATE = 2e-2


class RowClassifier(Module):
    """Classify digits from their rows, each [batch, 8], top to bottom; the last output gives the logits [batch, 10]."""

    def __init__(self, random: Random):
        self.cell = LSTMCell(digits.SIDE, HIDDEN, random)
        self.head = Linear(HIDDEN, digits.CLASSES, random)

    def forward(self, rows: list[Tensor]) -> Tensor:
        return self.head(unroll(self.cell, rows)[0])


def images_to_rows(images: list[list[int]]) -> list[Tensor]:
    """Return the eight rows of the digits, each [batch, 8], with ink scaled to 0…1."""
    rows = []
    for row in range(digits.SIDE):
        ink = [value for image in images for value in image[row * digits.SIDE : (row + 1) * digits.SIDE]]
        rows.append(Tensor([value / digits.MAX_PIXEL for value in ink], (len(images), digits.SIDE)))
    return rows


def fit(model: RowClassifier, training: digits.Digits, steps: int, random: Random) -> list[float]:
    """Train the classifier; return the loss at each step."""
    batches = shuffled_batches(len(training.images), BATCH, steps, random)

    def loss_at(step: int) -> Tensor:
        batch = training.subset(batches[step])
        return cross_entropy(model(images_to_rows(batch.images)), batch.labels)

    optimizer = AdamW(model.parameters().values(), LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = partial(warmup_cosine, steps=steps, warmup_steps=steps // 10)
    return train(model, loss_at, optimizer, steps, schedule=schedule, clip_norm=1.0, label="LSTM")


def print_gradient_norms(random: Random) -> None:
    """Print how the gradient through time shrinks in untrained cells."""
    print("gradient norm of the last output by the input 40, …, 1, 0 steps before (logarithm), in untrained cells:")
    for name, cell_class in (("RNN", RNNCell), ("LSTM", LSTMCell)):
        norms = gradient_norms(cell_class(1, HIDDEN, random), 40, random)
        print(f"  {name:5}{sparkline([math.log(value) for value in norms])}  {norms[0]:.0e} … {norms[-1]:.0e}")


def run(*, steps: int = STEPS, seed: int = 0) -> dict[str, float | int | list[float]]:
    """Train on four fifths of the digits; print and return what is measured on the fifth that `seed` holds out."""
    start = time.perf_counter()
    data, random = digits.load(), Random(seed)
    print_gradient_norms(random)
    training, held_out = (data.subset(indices) for indices in digits.train_test_split(len(data.images), 0.2, seed))
    model = RowClassifier(random)
    losses = fit(model, training, steps, random)
    with no_grad():
        logits = model(images_to_rows(held_out.images)).tolist()
        # The prediction after each row of one digit: the same head on the state so far.
        rows = images_to_rows(held_out.images[:1])
        partial_logits = [model(rows[: count + 1]).tolist()[0] for count in range(len(rows))]

    def accuracy(predictions: list[int]) -> float:
        return sum(map(eq, predictions, held_out.labels)) / len(predictions)

    measured = accuracy([row.index(max(row)) for row in logits])
    baseline = accuracy(digits.classify_by_nearest_mean(training, held_out.images))
    parameters, seconds = sum(len(tensor.data) for tensor in model.parameters().values()), time.perf_counter() - start
    print(f"\nloss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}")
    print(f"\naccuracy on {len(logits)} held-out digits (a random fifth, seed {seed})")
    print(f"  nearest class mean   {baseline:6.1%}")
    print(f"  LSTM, row by row     {measured:6.1%}   ({parameters:,} parameters, {seconds:.0f} s)")
    predictions = " ".join(str(row.index(max(row))) for row in partial_logits)
    print(f"\na held-out {held_out.labels[0]}; the prediction after row 1, 2, …, 8:  {predictions}")
    return {
        "seed": seed,
        "steps": steps,
        "parameters": parameters,
        "accuracy": measured,
        "baseline_accuracy": baseline,
        "seconds": seconds,
        "losses": losses,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Train an LSTM to classify digits row by row in pure Python.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps instead of {STEPS}, less accurate")
    parser.add_argument("--seed", type=int, default=0, help="seed of the held-out fifth and of every random draw")
    options = parser.parse_args()
    run(steps=QUICK_STEPS if options.quick else STEPS, seed=options.seed)


if __name__ == "__main__":
    run_program(main)
