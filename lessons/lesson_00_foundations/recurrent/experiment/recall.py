"""Remember one bit while numbers without meaning go by: how far back can a network carry it?

The task is that of Bengio, Simard & Frasconi (1994, section II: latch a bit against noise) in the form of Hochreiter &
Schmidhuber's (1997) long time lag tests: the bit comes first, then `lag` steps of noise, and in the end the question.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lessons.lesson_00_foundations.recurrent.model import Recurrent

INPUTS = 3
"""A value (the bit as ±1, or noise), whether this is the bit, whether this is the question."""


def sequences(
    count: int, lag: int, generator: torch.Generator
) -> tuple[Float[Tensor, "count time 3"], Int[Tensor, " count"]]:
    """Sequences of lag + 1 steps, the bit at step 0 and the question at step `lag`, and the bits, 0 or 1."""
    bits = torch.randint(2, (count,), generator=generator)
    inputs = torch.zeros(count, lag + 1, INPUTS)
    inputs[..., 0] = torch.randn(count, lag + 1, generator=generator)
    inputs[:, 0, 0] = 2.0 * bits - 1.0
    inputs[:, 0, 1] = 1.0
    inputs[:, -1, 2] = 1.0
    return inputs, bits


def batches(lag: int, seed: int, batch_size: int):
    """Batches of new sequences, a pure function of their number."""

    def batch_at(number: int) -> tuple[Tensor, Tensor]:
        mixed = int(np.random.SeedSequence([seed, lag, number]).generate_state(1, np.uint64)[0] >> 1)
        return sequences(batch_size, lag, torch.Generator().manual_seed(mixed))

    return batch_at


def held_out(lag: int, count: int = 500) -> tuple[Tensor, Tensor]:
    """Sequences that no training batch holds: their noise is drawn from numbers of its own."""
    return sequences(count, lag, torch.Generator().manual_seed(1_000_003 + lag))


def states_through_time(layer: Recurrent, inputs: Float[Tensor, "batch time inputs"]) -> list[tuple[Tensor, ...]]:
    """The state after each step, kept apart so that a gradient can be asked for at every one of them."""
    state, states = layer.start(len(inputs)), []
    for projected in layer.project(inputs).unbind(dim=1):
        state = layer.step(projected, state)
        for part in state:
            part.retain_grad()
        states.append(state)
    return states


def gradient_through_time(layer: Recurrent, inputs: Float[Tensor, "batch time inputs"]) -> list[float]:
    """How much the end feels of the state after each step: the gradient's length there, as a share of that at the end.

    The end is a random direction of what is shown last. Lengths are taken over the whole state (h, or h and c)
    and averaged over the batch.
    """
    states = states_through_time(layer, inputs)
    last = states[-1][0]
    direction = torch.randn(last.shape, generator=torch.Generator().manual_seed(0), dtype=last.dtype)
    (last * direction).sum().backward()
    lengths = []
    for state in states:
        parts = [part.grad for part in state if part.grad is not None]
        lengths.append(torch.cat(parts, dim=1).norm(dim=1).mean().item())
    layer.zero_grad(set_to_none=True)
    return [length / lengths[-1] for length in lengths]


def jacobian_through_time(
    shown: Float[Tensor, "time hidden"], weight_hh: Float[Tensor, "hidden hidden"]
) -> Float[Tensor, "hidden hidden"]:
    """How the last state of a plain network changes with the one before the first of `shown`: [last, before].

    One factor a step (Bengio et al. 1994, section III): h' = tanh(… + W_hh h) changes with h by diag(1 - h'²) W_hh. When the
    factors shrink what they are multiplied with, their product shrinks exponentially with time.
    """
    # exercise 0.24: the product of Jacobians
    product = torch.eye(shown.shape[1], dtype=shown.dtype)
    for after in shown:
        product = (1 - after**2)[:, None] * weight_hh @ product
    return product
    # end exercise
