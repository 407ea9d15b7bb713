"""The recall task: remember one bit over many steps of noise.

The task is that of Bengio, Simard & Frasconi (1994, section II: latch a bit against noise) in the form of Hochreiter &
Schmidhuber's (1997) long time lag tests. The bit comes first, then `lag` steps of noise, and at the end a query.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

INPUTS = 3
"""Input features: a value (the bit as ±1, or noise), a marker of the bit, and a marker of the query."""


def sequences(
    count: int, lag: int, generator: torch.Generator
) -> tuple[Float[Tensor, "count time 3"], Int[Tensor, " count"]]:
    """Return sequences of lag + 1 steps, with the bit at step 0 and the query at step `lag`, and the bits (0 or 1)."""
    bits = torch.randint(2, (count,), generator=generator)
    inputs = torch.zeros(count, lag + 1, INPUTS)
    inputs[..., 0] = torch.randn(count, lag + 1, generator=generator)
    inputs[:, 0, 0] = 2.0 * bits - 1.0
    inputs[:, 0, 1] = 1.0
    inputs[:, -1, 2] = 1.0
    return inputs, bits


def training_batches(lag: int, seed: int, batch_size: int) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Return a function from a batch's number to a batch of new sequences."""

    def batch_at(number: int) -> tuple[Tensor, Tensor]:
        batch_seed = int(np.random.SeedSequence([seed, lag, number]).generate_state(1, np.uint64)[0] >> 1)
        return sequences(batch_size, lag, torch.Generator().manual_seed(batch_seed))

    return batch_at


def held_out_sequences(lag: int, count: int = 500) -> tuple[Tensor, Tensor]:
    """Return sequences that no training batch contains, drawn from another seed."""
    return sequences(count, lag, torch.Generator().manual_seed(1_000_003 + lag))
