"""Forward and backward kernels against the float64 oracle: output, log-sum-exp and all three gradients."""

import pytest
import torch
from hypothesis import given, settings

from shared.attention import Mask, attention
from shared.attention.tests.triton_cases import (
    DEVICE,
    DTYPES,
    INTERPRETED,
    TOLERANCE,
    UNIT,
    compare,
    count,
    framed,
    named_masks,
    need_a_device,
    only_triton,
    poisoned,
    problems,
)

pytestmark = need_a_device()
__all__ = ["only_triton", "poisoned"]


@pytest.mark.parametrize("name", named_masks())
def test_every_mask_of_the_course(name):
    mask, q_len, k_len = named_masks()[name]
    batch = max([1, *(t.shape[0] for t in mask.tensors.values())])
    dtype = DTYPES[len(name) % len(DTYPES)]
    q = framed(batch, 2, q_len * UNIT, 16, dtype=dtype)
    k, v = (framed(batch, 1, k_len * UNIT, dim, dtype=dtype) for dim in (16, 16))
    compare(q, k, v, mask)


@settings(max_examples=10 if INTERPRETED else 60, deadline=None, derandomize=True)
@given(problem=problems())
def test_random_mixtures(problem):
    arguments, softcap = problem
    compare(*arguments, softcap=softcap)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype):
    """A softcap, and a mask with full, partial and empty tiles."""
    q, k, v = (framed(1, 1, 37 * UNIT, 16, dtype=dtype, spread=2.0) for _ in range(3))
    compare(q, k, v, Mask(causal=True, window=30 * UNIT), softcap=2.0, scale=0.5)


@pytest.mark.parametrize(
    ("head_dim", "value_dim"), [(72, 72), (3, 5), (128, 64)] + ([] if INTERPRETED else [(256, 256)])
)
def test_heads_of_any_width(head_dim, value_dim):
    q, k = (framed(1, 1, 18 * UNIT, head_dim, dtype=torch.float32) for _ in range(2))
    compare(q, k, framed(1, 1, 18 * UNIT, value_dim, dtype=torch.float32), Mask(), scale=head_dim**-0.5)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp2")  # of masked scores in the backward pass
@pytest.mark.parametrize(("dtype", "steepness"), [(torch.float32, 3), (torch.float16, 8)])
def test_scores_far_from_zero_do_not_overflow(dtype, steepness):
    """Scores of hundreds, falling and rising from block to block: only their maximum works as reference."""
    q, k, v = (framed(1, 1, 40 * UNIT, 16, dtype=dtype) for _ in range(3))
    ramp = torch.linspace(-steepness, steepness, 40 * UNIT, device=DEVICE, dtype=dtype)[:, None]
    for sign in (1, -1):
        compare(q * 0 + 5, k * 0.01 + sign * ramp, v, Mask(causal=True), scale=1.0)


def _window(batch, head, i, j):
    return (i >= j) & (i - j < 9)


def _prefix(batch, head, i, j):
    return (i >= j) | (j < 13)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    ("mask", "rule", "softcap"),
    [
        (lambda: Mask(causal=True, window=9), _window, None),
        (
            lambda: Mask(
                causal=True,
                span_q=(count(0, 40)[:, :40] >= 13).int() * -1,
                span_k=(count(0, 40)[:, :40] >= 13).int() * -1,
            ),
            _prefix,
            None,
        ),
        (lambda: Mask(causal=True), lambda batch, head, i, j: i >= j, 2.0),
    ],
    ids=["window", "prefix", "softcap"],
)
def test_flex_attention_agrees(monkeypatch, mask, rule, softcap):
    """A second, independent oracle for the masks that it can express."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    monkeypatch.undo()  # it traces with tensors without memory, which can't be poisoned
    monkeypatch.setenv("ATTENTION_BACKEND", "triton")
    q = framed(1, 2, 40, 16, dtype=torch.float32)
    k, v = (framed(1, 1, 40, 16, dtype=torch.float32) for _ in range(2))
    cap = (lambda score, *_: softcap * torch.tanh(score / softcap)) if softcap else None
    blocks = create_block_mask(rule, 1, 1, 40, 40, device=DEVICE)
    expected = flex_attention(q, k, v, score_mod=cap, block_mask=blocks, scale=0.4, enable_gqa=True)
    actual = attention(q, k, v, mask(), scale=0.4, softcap=softcap)
    torch.testing.assert_close(actual, expected, atol=TOLERANCE[q.dtype], rtol=TOLERANCE[q.dtype])
