"""Test optimizers, clipping and schedule against PyTorch."""

import math
from random import Random

import pytest
import torch

from shared.stdlib.creation import full, normal, tensor
from shared.stdlib.optim import SGD, Adam, AdamW, clip_gradients, warmup_cosine


@pytest.mark.parametrize(
    "engine,reference",
    [
        (lambda p: SGD(p, 0.1), lambda p: torch.optim.SGD(p, 0.1)),
        (lambda p: SGD(p, 0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
        (lambda p: Adam(p, 0.1), lambda p: torch.optim.Adam(p, 0.1)),
        (lambda p: Adam(p, 0.1, (0.8, 0.9), 1e-3), lambda p: torch.optim.Adam(p, 0.1, (0.8, 0.9), 1e-3)),
        (lambda p: AdamW(p, 0.1, weight_decay=0.3), lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.3)),
    ],
)
def test_steps_equal_pytorch(engine, reference):
    weights = normal((3, 4), 1.0, Random(0), requires_grad=True)
    unused = full((2,), 1.0, requires_grad=True)
    reference_result = torch.tensor(weights.tolist(), dtype=torch.float64, requires_grad=True)
    optimizer, twin_optimizer = engine([weights, unused]), reference([reference_result])
    schedule = torch.optim.lr_scheduler.LambdaLR(twin_optimizer, lambda step: warmup_cosine(step, 7, 2, 0.1))
    for step in range(7):
        weights.grad, reference_result.grad = None, None
        (weights**4 + weights).sum().backward()
        (reference_result**4 + reference_result).sum().backward()
        length = clip_gradients([weights, unused], 2.0)
        assert length == pytest.approx(torch.nn.utils.clip_grad_norm_([reference_result], 2.0).item(), rel=1e-5)
        # PyTorch divides by the length plus 1e-6; the same gradient must go into both optimizers.
        reference_result.grad.copy_(torch.tensor(weights.grad, dtype=torch.float64).view(3, 4))
        optimizer.step(warmup_cosine(step, 7, 2, 0.1))
        twin_optimizer.step()
        schedule.step()
        assert weights.data == pytest.approx(reference_result.flatten().tolist(), rel=0, abs=1e-12)
    assert unused.data == [1.0, 1.0]


def test_clipping_scales_all_gradients_by_one_factor_if_the_norm_is_too_large():
    x, y = tensor([1.0, 1.0], requires_grad=True), tensor([1.0], requires_grad=True)
    x.grad, y.grad = [1.0, 2.0], [2.0]
    assert clip_gradients([x, y], 3.5) == pytest.approx(3.0)
    assert (x.grad, y.grad) == ([1.0, 2.0], [2.0])
    clip_gradients([x, y], 1.5)
    assert x.grad + y.grad == pytest.approx([0.5, 1.0, 1.0])


def test_schedule_is_linear_warmup_then_half_a_cosine():
    factors = [warmup_cosine(step, 12, 4, 0.2) for step in range(13)]
    assert factors[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert factors[8] == pytest.approx(0.6) and factors[12] == pytest.approx(0.2)
    assert all(math.isclose(warmup_cosine(step, 5), 0.5 + 0.5 * math.cos(math.pi * step / 5)) for step in range(5))


def test_earlier_results_keep_their_weights():
    x = tensor([2.0], requires_grad=True)
    loss = (x * x).sum()
    x.grad = [1.0]
    SGD([x], 0.5).step()
    loss.backward()
    assert x.grad[0] == pytest.approx(1.0 + 4.0)
