"""Tensors from nothing: from lists, from one number, from a die.

Whatever is drawn at random is drawn from a `random.Random` that the caller hands over. There is no hidden generator,
so the same seed gives the same numbers, in whatever order other things run.
"""

import math
from collections.abc import Sequence
from random import Random

from shared.stdlib.shapes import Shape
from shared.stdlib.tensor import Tensor


def tensor(values: Sequence | float, requires_grad: bool = False) -> Tensor:
    """A tensor from a number or from lists in lists. Raises ValueError when lists of one depth differ in length."""
    shape, flat = (), [values]
    while flat and isinstance(flat[0], Sequence):
        sizes = {len(item) if isinstance(item, Sequence) else -1 for item in flat}
        if len(sizes) != 1:
            raise ValueError(f"lists at depth {len(shape)} differ in length ({sorted(sizes)}); a tensor is a full box")
        shape += (sizes.pop(),)
        flat = [value for item in flat for value in item]
    return Tensor([float(value) for value in flat], shape, requires_grad)


def full(shape: Shape, value: float, requires_grad: bool = False) -> Tensor:
    return Tensor([float(value)] * math.prod(shape), shape, requires_grad)


def normal(shape: Shape, deviation: float, random: Random, requires_grad: bool = False) -> Tensor:
    """Numbers drawn from a bell curve around 0."""
    draws = [random.gauss(0.0, deviation) for _ in range(math.prod(shape))]
    return Tensor(draws, shape, requires_grad)


def uniform(shape: Shape, limit: float, random: Random, requires_grad: bool = False) -> Tensor:
    """Numbers drawn evenly from -limit to limit."""
    draws = [random.uniform(-limit, limit) for _ in range(math.prod(shape))]
    return Tensor(draws, shape, requires_grad)
