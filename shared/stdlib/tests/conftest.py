"""The one check that every operator of the engine must pass."""

from random import Random

import pytest
import torch

from shared.stdlib.autograd import no_grad
from shared.stdlib.creation import normal
from shared.stdlib.tensor import Tensor


@pytest.fixture(scope="session")
def check():
    """`check(seed, shapes, ours, theirs)`: value and gradients of ours against PyTorch's and against finite differences."""
    return _check


def _check(seed: str, shapes, ours, theirs=None, tolerance: float = 1e-9) -> None:
    """Value and gradients of ours against PyTorch's, and gradients against central differences of ours."""
    random = Random(seed)
    inputs = [normal(shape, 1.0, random, requires_grad=True) for shape in shapes]
    twins = [torch.tensor(x.tolist(), dtype=torch.float64, requires_grad=True) for x in inputs]
    out, twin = ours(*inputs), (theirs or ours)(*twins)
    assert out.shape == tuple(twin.shape)
    assert out.data == pytest.approx(twin.flatten().tolist(), rel=0, abs=tolerance)

    # An uneven weight on every number, so that no mistake in a gradient can hide in a sum.
    weights = normal(out.shape, 1.0, random)
    outcome = (out * weights).sum()
    # An optimizer may step before the walk back: what counts is what the inputs were.
    kept = [x.data for x in inputs]
    for x in inputs:
        x.data = [float("nan")] * len(x.data)
    outcome.backward()
    for x, data in zip(inputs, kept, strict=True):
        x.data = data
    (twin * torch.tensor(weights.tolist(), dtype=torch.float64)).sum().backward()
    for x, y in zip(inputs, twins, strict=True):
        assert x.grad == pytest.approx(y.grad.flatten().tolist(), rel=0, abs=tolerance)
        assert x.grad == pytest.approx(_slopes(lambda: (ours(*inputs) * weights).sum().item(), x), rel=1e-5, abs=1e-6)


def _slopes(outcome, x: Tensor, step: float = 1e-5) -> list[float]:
    """How `outcome` changes with each number of x, found by changing it a little to either side."""
    found = []
    with no_grad():
        for index, value in enumerate(x.data):
            ends = []
            for end in (value + step, value - step):
                x.data[index] = end
                ends.append(outcome())
            x.data[index] = value
            found.append((ends[0] - ends[1]) / (2 * step))
    return found
