"""Create tensors: from lists, from one value, from random numbers.

Random numbers come from a `random.Random` that the caller passes. There is no global generator, so the same seed gives
the same numbers in whatever order other code runs.
"""

import math
from collections.abc import Sequence
from random import Random
from typing import Any

from shared.stdlib.shapes import Shape
from shared.stdlib.tensor import Tensor


def tensor(values: Sequence | float, requires_grad: bool = False) -> Tensor:
    """Return a tensor from a number or nested lists. Raises ValueError when lists at one depth differ in length."""
    shape: Shape = ()
    flat: list[Any] = [values]
    while flat and isinstance(flat[0], Sequence):
        sizes = {len(item) if isinstance(item, Sequence) else -1 for item in flat}
        if len(sizes) != 1:
            raise ValueError(
                f"lists at depth {len(shape)} differ in length ({sorted(sizes)}); "
                "all lists at a depth must be equally long"
            )
        shape += (sizes.pop(),)
        flat = [value for item in flat for value in item]
    return Tensor([float(value) for value in flat], shape, requires_grad)


def full(shape: Shape, value: float, requires_grad: bool = False) -> Tensor:
    """Return a tensor filled with one value."""
    return Tensor([float(value)] * math.prod(shape), shape, requires_grad)


def normal(shape: Shape, std: float, random: Random, requires_grad: bool = False) -> Tensor:
    """Return random numbers from a normal distribution with mean 0."""
    draws = [random.gauss(0.0, std) for _ in range(math.prod(shape))]
    return Tensor(draws, shape, requires_grad)


def uniform(shape: Shape, limit: float, random: Random, requires_grad: bool = False) -> Tensor:
    """Return random numbers from a uniform distribution over [-limit, limit]."""
    draws = [random.uniform(-limit, limit) for _ in range(math.prod(shape))]
    return Tensor(draws, shape, requires_grad)
