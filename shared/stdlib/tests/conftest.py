"""The check that every operator must pass."""

from random import Random

import pytest
import torch

from shared.stdlib.autograd import no_grad
from shared.stdlib.creation import normal
from shared.stdlib.tensor import Tensor


@pytest.fixture(scope="session")
def check():
    """Return the check that compares value and gradients with PyTorch's and with finite differences."""
    return _check


def _check(seed: str, shapes, engine, reference=None, tolerance: float = 1e-9) -> None:
    """Compare value and gradients with PyTorch's, and gradients with central differences."""
    random = Random(seed)
    inputs = [normal(shape, 1.0, random, requires_grad=True) for shape in shapes]
    references = [torch.tensor(x.tolist(), dtype=torch.float64, requires_grad=True) for x in inputs]
    out, reference_result = engine(*inputs), (reference or engine)(*references)
    assert out.shape == tuple(reference_result.shape)
    assert out.data == pytest.approx(reference_result.flatten().tolist(), rel=0, abs=tolerance)

    # An uneven weight on every number, so that no mistake in a gradient can hide in a sum.
    weights = normal(out.shape, 1.0, random)
    loss = (out * weights).sum()
    # An optimizer may step before the backward pass: gradients must be those at the original inputs.
    original_data = [x.data for x in inputs]
    for x in inputs:
        x.data = [float("nan")] * len(x.data)
    loss.backward()
    for x, data in zip(inputs, original_data, strict=True):
        x.data = data
    (reference_result * torch.tensor(weights.tolist(), dtype=torch.float64)).sum().backward()
    for x, y in zip(inputs, references, strict=True):
        assert x.grad == pytest.approx(y.grad.flatten().tolist(), rel=0, abs=tolerance)
        assert x.grad == pytest.approx(
            _finite_differences(lambda: (engine(*inputs) * weights).sum().item(), x), rel=1e-5, abs=1e-6
        )


def _finite_differences(loss, x: Tensor, step: float = 1e-5) -> list[float]:
    """Return the central difference of `loss` for each number of x."""
    differences = []
    with no_grad():
        for index, value in enumerate(x.data):
            ends = []
            for end in (value + step, value - step):
                x.data[index] = end
                ends.append(loss())
            x.data[index] = value
            differences.append((ends[0] - ends[1]) / (2 * step))
    return differences
