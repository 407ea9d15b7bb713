"""The way into the kernels: odd inputs, autograd, attention_backward, compiled programs."""

import os

import pytest
import torch

from shared.attention import Mask, attention, attention_backward
from shared.attention.dispatch import choose_backend
from shared.attention.tests.triton_cases import (
    DEVICE,
    TOLERANCE,
    UNIT,
    compare,
    count,
    framed,
    need_a_device,
    only_triton,
    poisoned,
    runs,
)

pytestmark = need_a_device()
__all__ = ["only_triton", "poisoned"]


def test_who_is_picked(monkeypatch):
    """Triton by itself on CUDA alone; an impossible choice says why."""
    q = torch.randn(1, 1, 4, 16, device=DEVICE)
    for tensors, bias, said in (
        ([q.double()] * 3, None, "float32, float16 and bfloat16, not in torch.float64"),
        ([q] * 3, torch.zeros(1, 1, 1, 1, device=DEVICE), "its kernels take no bias"),
        ([torch.randn(1, 1, 4, 264, device=DEVICE)] * 3, None, "heads of at most 256, not 264"),
    ):
        with pytest.raises(ValueError, match=f"ATTENTION_BACKEND is 'triton', but .*{said}; unset it"):
            attention(*tensors, bias=bias)
    assert choose_backend(q, q, q) == "triton"
    monkeypatch.setenv("ATTENTION_BACKEND", "")
    assert choose_backend(q, q, q) == ("triton" if q.is_cuda else "sdpa")


@pytest.mark.parametrize("scale", [-0.7, 0.0])
def test_a_scale_that_is_not_positive(scale):
    q, k, v = (framed(1, 1, 20, 16, dtype=torch.float32) for _ in range(3))
    compare(q, k, v, Mask(causal=True), scale=scale)


def test_vectors_that_are_not_side_by_side_are_read_right():
    q, k, v = (framed(1, 1, 16, 20, dtype=torch.float32).transpose(2, 3) for _ in range(3))
    compare(q, k, v, Mask())


def test_nothing_to_compute():
    for q_len, k_len in ((0, 5), (5, 0)):
        q, k = (torch.randn(1, 2, n, 16, device=DEVICE, requires_grad=True) for n in (q_len, k_len))
        for mask in (Mask(causal=True), Mask(segment_k=torch.zeros(1, k_len, device=DEVICE, dtype=torch.int))):
            out, lse = attention(q, k, k, mask, return_lse=True)
            assert out.shape == q.shape and (out == 0).all() and (lse == -torch.inf).all()
            grads = torch.autograd.grad(out.sum(), (q, k))
            assert all((grad == 0).all() for grad in grads)


def test_the_gradients_of_a_ring_of_blocks_add_up():
    """Keys in two blocks: outputs merge by their log-sum-exps, gradients come from the merged ones (arXiv:2310.01889)."""
    q, k, v = (framed(1, 1, 32 * UNIT, 16, dtype=torch.float32) for _ in range(3))
    halves = [(slice(0, 20 * UNIT), count(0, 20)), (slice(20 * UNIT, 32 * UNIT), count(20, 12))]
    parts = [
        attention(q, k[:, :, of], v[:, :, of], Mask(causal=True, position_k=at), return_lse=True) for of, at in halves
    ]
    lse = torch.logaddexp(parts[0][1], parts[1][1])
    out = sum(torch.exp(part_lse - lse)[..., None] * part for part, part_lse in parts)

    exact = [x.double().detach().requires_grad_() for x in (q, k, v)]
    grad_out = torch.randn_like(out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTENTION_BACKEND", "naive")
        expected = torch.autograd.grad(attention(*exact, Mask(causal=True)), exact, grad_out.double())
    grads = [
        attention_backward(q, k[:, :, of], v[:, :, of], out, lse, grad_out, Mask(causal=True, position_k=at))
        for of, at in halves
    ]
    actual = (grads[0][0] + grads[1][0], *(torch.cat([grads[0][i], grads[1][i]], 2) for i in (1, 2)))
    for mine, right in zip(actual, expected, strict=True):
        torch.testing.assert_close(mine.double(), right, atol=3 * TOLERANCE[q.dtype], rtol=3 * TOLERANCE[q.dtype])


def test_a_row_that_sees_nothing_passes_on_no_gradient_of_its_log_sum_exp():
    """It is the constant −∞ there, and what is done with −∞ further on may well have no gradient that is a number."""
    q, k, v = (framed(1, 1, 20 * UNIT, 16, dtype=torch.float32).requires_grad_() for _ in range(3))
    out, lse = attention(q, k, v, Mask(segment_q=runs((5, -1), (15, 0))), return_lse=True)
    blind = lse == -torch.inf
    assert int(blind.sum()) == 5 * UNIT
    grad_out, given = torch.randn_like(out), torch.randn_like(lse)
    found = [
        torch.autograd.grad([out, lse], (q, k, v), [grad_out, given.masked_fill(blind, value)], retain_graph=True)
        for value in (0.0, torch.nan)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_same_inputs_give_the_same_bits():
    segment = runs((20, 0), (17, 1))
    mask = Mask(causal=True, segment_q=segment, segment_k=segment)
    q, k, v = (framed(1, 2, 37 * UNIT, 16, dtype=torch.float32).requires_grad_() for _ in range(3))
    grad = torch.randn(1, 2, 37 * UNIT, 16, device=DEVICE)
    first, second = (torch.autograd.grad(attention(q, k, v, mask), (q, k, v), grad) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.skipif(
    os.environ.get("JAXTYPING_DISABLE") != "1",
    reason="a program with shape checks can't be compiled; set JAXTYPING_DISABLE=1",
)
def test_a_compiled_program_takes_the_kernels_whole(monkeypatch):
    """Without a break in the graph, forward and backward, with the mask's tensors as inputs."""
    monkeypatch.undo()  # a program is traced with tensors that have no memory to poison
    monkeypatch.setenv("ATTENTION_BACKEND", "triton")

    def program(q, k, v, segment):
        mask = Mask(causal=True, segment_q=segment, segment_k=segment)
        return attention(q * 2, k, v, mask, return_lse=True)

    q, k, v = (torch.randn(1, 1, 24, 16, device=DEVICE, requires_grad=True) for _ in range(3))
    segment = torch.arange(24, device=DEVICE)[None] // 10
    results = []
    for run in (program, torch.compile(program, fullgraph=True, backend="aot_eager")):
        out, lse = run(q, k, v, segment)
        results.append([out, lse, *torch.autograd.grad(out.square().sum() + lse.sum(), (q, k, v))])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)
