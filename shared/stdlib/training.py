"""A training loop with a progress line."""

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
    """Train for `steps` steps and return the loss at each step.

    loss_at    step → the loss of its batch, a tensor of shape ()
    schedule   step → the factor of the learning rate
    clip_norm  the largest norm of all gradients together; None for no clipping
    label      the name on the progress line

    Raises FloatingPointError when a loss is NaN or infinite, before it changes any weight.
    """
    parameters = model.parameters().values()
    progress = Progress(steps, label)
    losses: list[float] = []
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
    """Return the indices of each step's batch: every example occurs once, in random order, before any occurs again."""
    order: list[int] = []
    while len(order) < steps * size:
        order += random.sample(range(count), count)
    return [order[step * size : (step + 1) * size] for step in range(steps)]


class Progress:
    """A line on the terminal that is rewritten in place: loss, steps per second, time left.

    In a file or a pipe, which cannot be rewritten, it writes five lines in all.
    Output goes to standard error, so that results on standard output stay clean.
    """

    def __init__(self, steps: int, label: str, stream: TextIO | None = None):
        self.steps, self.label = steps, label
        self.stream = sys.stderr if stream is None else stream
        self.live = self.stream.isatty()
        self.start = self.last_update = time.perf_counter()

    def report(self, done: int, loss: float) -> None:
        """Show that `done` steps are done, and the loss of the last one."""
        now = time.perf_counter()
        # Ten updates per second are as many as a reader can follow, and cost a fast loop nothing.
        due = now - self.last_update >= 0.1 if self.live else done * 5 // self.steps > (done - 1) * 5 // self.steps
        if not due and done < self.steps:
            return
        self.last_update = now
        rate = done / max(now - self.start, 1e-9)
        remaining = (self.steps - done) / rate
        line = f"{self.label} {done}/{self.steps}  loss {loss:.4f}  {rate:.1f} steps/s  {remaining:.0f} s left"
        if self.live:
            # Carriage return, the line, and "clear to the end", which removes the rest of a longer line before.
            self.stream.write(f"\r{line}\x1b[K" + ("\n" if done == self.steps else ""))
        else:
            self.stream.write(line + "\n")
        self.stream.flush()
