"""The training loop: guess, measure, walk back, move. And a line that tells how it goes."""

import math
import sys
import time
from collections.abc import Callable
from random import Random
from typing import TextIO

from shared.stdlib.nn import Module
from shared.stdlib.optim import SGD, Adam, clip_gradients
from shared.stdlib.tensor import Tensor


def train(
    model: Module,
    loss_at: Callable[[int], Tensor],
    optimizer: SGD | Adam,
    steps: int,
    *,
    schedule: Callable[[int], float] = lambda step: 1.0,
    clip_norm: float | None = None,
    label: str = "training",
) -> list[float]:
    """Take `steps` steps down the loss, and return the loss at each.

    `loss_at(step)` builds the loss of one batch, `schedule(step)` the factor on the learning rate.
    Raises FloatingPointError when a loss is no number any more: going on would only write NaN into every weight.
    """
    parameters = model.parameters().values()
    progress = Progress(steps, label)
    losses = []
    for step in range(steps):
        loss = loss_at(step)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(
                f"the loss became {losses[-1]} at step {step}; try a smaller learning rate or clipping"
            )
        for parameter in parameters:
            parameter.grad = None
        loss.backward()
        if clip_norm is not None:
            clip_gradients(parameters, clip_norm)
        optimizer.step(schedule(step))
        progress.report(step + 1, losses[-1])
    return losses


def shuffled_batches(count: int, size: int, steps: int, random: Random) -> list[list[int]]:
    """Which of `count` examples each step sees: all of them in random order, before any is seen again."""
    order: list[int] = []
    while len(order) < steps * size:
        order += random.sample(range(count), count)
    return [order[step * size : (step + 1) * size] for step in range(steps)]


class Progress:
    """One line on the terminal that renews itself: loss, steps a second, time left.

    Into a file or a pipe, where a line cannot renew itself, it writes a line at each fifth of the way.
    Everything goes to standard error, so that results on standard output stay clean.
    """

    def __init__(self, steps: int, label: str, stream: TextIO | None = None):
        self.steps, self.label = steps, label
        self.stream = sys.stderr if stream is None else stream
        self.live = self.stream.isatty()
        self.start = self.last_shown = time.perf_counter()

    def report(self, done: int, loss: float) -> None:
        now = time.perf_counter()
        # Ten times a second is as often as an eye can follow, and costs a fast loop nothing.
        due = now - self.last_shown >= 0.1 if self.live else done * 5 // self.steps > (done - 1) * 5 // self.steps
        if not due and done < self.steps:
            return
        self.last_shown = now
        rate = done / max(now - self.start, 1e-9)
        line = f"{self.label} {done}/{self.steps}  loss {loss:.4f}  {rate:.1f} steps/s  {(self.steps - done) / rate:.0f} s left"
        if self.live:
            # Carriage return, the line, and "clear to the end": nothing of a longer line before is left behind.
            self.stream.write(f"\r{line}\x1b[K" + ("\n" if done == self.steps else ""))
        else:
            self.stream.write(line + "\n")
        self.stream.flush()
