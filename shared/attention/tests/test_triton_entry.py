"""The calls into the kernels: unusual inputs, autograd, attention_backward, compiled programs."""

import os

import pytest
import torch

from shared.attention import Mask, OutputGradient, attention, attention_backward
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


def test_the_choice_of_backend(monkeypatch):
    """Triton is chosen on CUDA only; an impossible forced choice states the reason."""
    q = torch.randn(1, 1, 4, 16, device=DEVICE)
    for tensors, bias, message in (
        ([q.double()] * 3, None, "float32, float16 and bfloat16, not in torch.float64"),
        ([q] * 3, torch.zeros(1, 1, 1, 1, device=DEVICE), "its kernels take no bias"),
        ([torch.randn(1, 1, 4, 264, device=DEVICE)] * 3, None, "heads of at most 256, not 264"),
    ):
        with pytest.raises(ValueError, match=f"ATTENTION_BACKEND is 'triton', but .*{message}; unset it"):
            attention(*tensors, bias=bias)
    assert choose_backend(q, q, q) == "triton"
    monkeypatch.setenv("ATTENTION_BACKEND", "")
    assert choose_backend(q, q, q) == ("triton" if q.is_cuda else "sdpa")


@pytest.mark.parametrize("scale", [-0.7, 0.0])
def test_a_scale_that_is_not_positive(scale):
    q, k, v = (framed(1, 1, 20, 16, dtype=torch.float32) for _ in range(3))
    compare(q, k, v, Mask(causal=True), scale=scale)


def test_vectors_that_are_not_contiguous():
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


def test_the_gradients_of_blocks_of_keys_add_up():
    """Outputs over two blocks of keys merge by log-sum-exp; gradients come from the merged ones (arXiv:2310.01889)."""
    q, k, v = (framed(1, 1, 32 * UNIT, 16, dtype=torch.float32) for _ in range(3))
    blocks = [(slice(0, 20 * UNIT), count(0, 20)), (slice(20 * UNIT, 32 * UNIT), count(20, 12))]
    parts = [
        attention(q, k[:, :, keys], v[:, :, keys], Mask(causal=True, position_k=positions), return_lse=True)
        for keys, positions in blocks
    ]
    lse = torch.logaddexp(parts[0][1], parts[1][1])
    out = sum(torch.exp(part_lse - lse)[..., None] * part for part, part_lse in parts)

    exact = [x.double().detach().requires_grad_() for x in (q, k, v)]
    grad_out = torch.randn_like(out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTENTION_BACKEND", "naive")
        expected = torch.autograd.grad(attention(*exact, Mask(causal=True)), exact, grad_out.double())
    grads = [
        attention_backward(
            q, k[:, :, keys], v[:, :, keys], OutputGradient(out, lse, grad_out), Mask(causal=True, position_k=positions)
        )
        for keys, positions in blocks
    ]
    actual = (grads[0][0] + grads[1][0], *(torch.cat([grads[0][i], grads[1][i]], 2) for i in (1, 2)))
    for gradient, exact_gradient in zip(actual, expected, strict=True):
        torch.testing.assert_close(
            gradient.double(), exact_gradient, atol=3 * TOLERANCE[q.dtype], rtol=3 * TOLERANCE[q.dtype]
        )


def test_the_log_sum_exp_of_a_row_without_visible_keys_has_no_gradient():
    """There it is the constant −∞, and later operations on −∞ can have a gradient of NaN."""
    q, k, v = (framed(1, 1, 20 * UNIT, 16, dtype=torch.float32).requires_grad_() for _ in range(3))
    out, lse = attention(q, k, v, Mask(segment_q=runs((5, -1), (15, 0))), return_lse=True)
    empty = lse == -torch.inf
    assert int(empty.sum()) == 5 * UNIT
    grad_out, grad_lse = torch.randn_like(out), torch.randn_like(lse)
    gradients = [
        torch.autograd.grad([out, lse], (q, k, v), [grad_out, grad_lse.masked_fill(empty, value)], retain_graph=True)
        for value in (0.0, torch.nan)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


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
@pytest.mark.parametrize("names", [[], ["segment"], ["position", "segment", "span"]])
def test_a_compiled_program_contains_the_kernels(monkeypatch, names):
    """There is no graph break, forward or backward, and the mask's tensors are inputs."""
    monkeypatch.undo()  # tracing uses tensors without memory, which can't be poisoned
    monkeypatch.setenv("ATTENTION_BACKEND", "triton")

    def program(q, k, v, **tensors):
        mask = Mask(causal=True, **tensors)
        return attention(q * 2, k, v, mask, return_lse=True)

    q, k, v = (torch.randn(1, 1, 24, 16, device=DEVICE, requires_grad=True) for _ in range(3))
    tensors = {f"{name}_{side}": torch.arange(24, device=DEVICE)[None] // 10 for name in names for side in "qk"}
    results = []
    for run in (program, torch.compile(program, fullgraph=True, backend="aot_eager")):
        out, lse = run(q, k, v, **tensors)
        results.append([out, lse, *torch.autograd.grad(out.square().sum() + lse.sum(), (q, k, v))])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)
