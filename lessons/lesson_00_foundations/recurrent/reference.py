"""Networks with a memory, in pure Python: the recurrent network of Elman (1990) and the LSTM (Hochreiter & Schmidhuber 1997).

First the two cells, a line for each equation. Then how far back each of them feels: the gradient of what comes out at the end,
by what went in before. Then an LSTM learns to read handwritten digits a row at a time, in about half a minute, with nothing installed:

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
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import shuffled_batches, train

# ── The cells ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class RNNCell(Module):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh): one step of the plain recurrent network.

    x [batch, inputs], state (h,) with h [batch, hidden]. Weights have PyTorch's names and layout.
    """

    gates = 1

    def __init__(self, inputs: int, hidden: int, random: Random):
        limit, rows = 1.0 / math.sqrt(hidden), self.gates * hidden
        self.weight_ih = uniform((rows, inputs), limit, random, requires_grad=True)
        self.weight_hh = uniform((rows, hidden), limit, random, requires_grad=True)
        self.bias_ih = full((rows,), 0.0, requires_grad=True)
        self.bias_hh = full((rows,), 0.0, requires_grad=True)
        self.hidden = hidden

    def start(self, batch: int) -> tuple[Tensor, ...]:
        """Nothing remembered yet."""
        return (full((batch, self.hidden), 0.0),)

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h,) = state
        return ((linear(x, self.weight_ih, self.bias_ih) + linear(h, self.weight_hh, self.bias_hh)).tanh(),)


class LSTMCell(RNNCell):
    """A cell c that is kept and added to, and three gates that say what is let in (i), kept (f) and shown (o).

    i, f, g, o = σ, σ, tanh, σ of W_ih x + b_ih + W_hh h + b_hh;   c' = f · c + i · g;   h' = o · tanh(c').
    State (h, c). The forget gate is Gers, Schmidhuber and Cummins's (2000); its bias starts at 1, so that at first
    the cell keeps most of what it holds.
    """

    gates = 4

    def __init__(self, inputs: int, hidden: int, random: Random):
        super().__init__(inputs, hidden, random)
        self.bias_ih.data = [float(hidden <= row < 2 * hidden) for row in range(4 * hidden)]

    def start(self, batch: int) -> tuple[Tensor, ...]:
        return full((batch, self.hidden), 0.0), full((batch, self.hidden), 0.0)

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h, c = state
        rows = linear(x, self.weight_ih, self.bias_ih) + linear(h, self.weight_hh, self.bias_hh)
        i, f, g, o = (rows[:, gate * self.hidden : (gate + 1) * self.hidden] for gate in range(4))
        # A sum, and not a product of matrices: along c the past comes through with a factor of f, which can stay near 1.
        c = sigmoid(f) * c + sigmoid(i) * g.tanh()
        return sigmoid(o) * c.tanh(), c


def unroll(cell: RNNCell, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """The state after reading the inputs [batch, inputs] one after the other: the same cell, again and again."""
    state = cell.start(inputs[0].shape[0])
    for x in inputs:
        state = cell(x, state)
    return state


# ── How far back it feels ──────────────────────────────────────────────────────────────────────────────────────────────


def influence(cell: RNNCell, steps: int, random: Random) -> list[float]:
    """Length of the gradient of what a cell shows in the end, by its input `steps`, …, 1, 0 steps before (the oldest first)."""
    width = cell.weight_ih.shape[1]
    inputs = [normal((1, width), 1.0, random, requires_grad=True) for _ in range(steps + 1)]
    (unroll(cell, inputs)[0] * normal((1, cell.hidden), 1.0, random)).sum().backward()
    return [math.hypot(*x.grad) for x in inputs]


# ── Learning to read digits, a row at a time ───────────────────────────────────────────────────────────────────────────

HIDDEN = 16
BATCH = 16
STEPS, QUICK_STEPS = 900, 90
LEARNING_RATE = 2e-2


class Reader(Module):
    """Rows of a digit, [batch, 8] each, from the top down → logits [batch, 10], from what is remembered in the end."""

    def __init__(self, random: Random):
        self.cell = LSTMCell(digits.SIDE, HIDDEN, random)
        self.head = Linear(HIDDEN, digits.CLASSES, random)

    def forward(self, rows: list[Tensor]) -> Tensor:
        return self.head(unroll(self.cell, rows)[0])


def rows_of_images(images: list[list[int]]) -> list[Tensor]:
    """Digits as eight rows [batch, 8], ink from 0 to 1."""
    rows = []
    for row in range(digits.SIDE):
        ink = [value for image in images for value in image[row * digits.SIDE : (row + 1) * digits.SIDE]]
        rows.append(Tensor([value / digits.MAX_PIXEL for value in ink], (len(images), digits.SIDE)))
    return rows


def fit(model: Reader, training: digits.Digits, steps: int, random: Random) -> list[float]:
    plan = shuffled_batches(len(training.images), BATCH, steps, random)

    def loss_at(step: int) -> Tensor:
        batch = training.subset(plan[step])
        return cross_entropy(model(rows_of_images(batch.images)), batch.labels)

    optimizer = AdamW(model.parameters().values(), LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = partial(warmup_cosine, steps=steps, warmup_steps=steps // 10)
    return train(model, loss_at, optimizer, steps, schedule=schedule, clip_norm=1.0, label="LSTM")


def run(*, steps: int = STEPS, seed: int = 0) -> dict[str, float | int | list[float]]:
    """Train on four fifths of the digits; print and return what is measured on the fifth that `seed` holds out."""
    start = time.perf_counter()
    data, random = digits.load(), Random(seed)
    print("how much the end feels of an input 40, …, 1, 0 steps before (logarithm), in fresh cells:")
    for name, kind in (("RNN", RNNCell), ("LSTM", LSTMCell)):
        felt = influence(kind(1, HIDDEN, random), 40, random)
        print(f"  {name:5}{sparkline([math.log(value) for value in felt])}  {felt[0]:.0e} … {felt[-1]:.0e}")

    kept, held_out = (data.subset(indices) for indices in digits.train_test_split(len(data.images), 0.2, seed))
    model = Reader(random)
    losses = fit(model, kept, steps, random)
    with no_grad():
        logits = model(rows_of_images(held_out.images)).tolist()
        # What it would say if the digit ended here: after each row, the same head on what is remembered so far.
        rows = rows_of_images(held_out.images[:1])
        partly = [model(rows[: count + 1]).tolist()[0] for count in range(len(rows))]
    found = [row.index(max(row)) for row in logits]

    def accuracy(found: list[int]) -> float:
        return sum(map(eq, found, held_out.labels)) / len(found)

    result = {
        "seed": seed,
        "steps": steps,
        "parameters": sum(len(tensor.data) for tensor in model.parameters().values()),
        "accuracy": accuracy(found),
        "baseline_accuracy": accuracy(digits.classify_by_nearest_mean(kept, held_out.images)),
        "seconds": time.perf_counter() - start,
        "losses": losses,
    }
    print(f"\nloss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}")
    print(f"\nheld out: {len(found)} digits that it never saw (a random fifth, seed {seed})")
    print(f"  nearest class mean   {result['baseline_accuracy']:6.1%}")
    print(
        f"  LSTM, row by row     {result['accuracy']:6.1%}   ({result['parameters']:,} parameters, {result['seconds']:.0f} s)"
    )
    guesses = " ".join(str(row.index(max(row))) for row in partly)
    print(f"\na held-out {held_out.labels[0]}; what it would call it after row 1, 2, …, 8:  {guesses}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Train an LSTM to read digits row by row in pure Python.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps instead of {STEPS}, less accurate")
    parser.add_argument("--seed", type=int, default=0, help="what is held out, and every random draw (default 0)")
    given = parser.parse_args()
    run(steps=QUICK_STEPS if given.quick else STEPS, seed=given.seed)


if __name__ == "__main__":
    main()
