"""sdpa against the float64 oracle, forward and gradients, over random mixtures of everything the mask can say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.attention import Mask, segments_from_lengths
from shared.attention import sdpa as sdpa_module
from shared.attention.naive import attention_naive
from shared.attention.sdpa import attention_sdpa
from shared.transformer import positions_within


def _tokens(draw, batch: int, length: int) -> dict[str, torch.Tensor]:
    """Positions, segments and spans of one side, each of them sometimes left out or shared by the batch."""

    def integers(low: int, high: int, in_order: bool) -> torch.Tensor:
        rows = draw(st.sampled_from([1, batch]))
        row = st.lists(st.integers(low, high), min_size=length, max_size=length)
        return torch.tensor([sorted(r) if in_order else r for r in (draw(row) for _ in range(rows))])

    given = {}
    if draw(st.booleans()):
        given["position"] = integers(0, length, draw(st.booleans()))
    if draw(st.booleans()):
        given["segment"] = integers(-1, 2, draw(st.booleans()))
    if draw(st.booleans()):
        given["span"] = integers(-1, 1, True)
    return given


@st.composite
def _problems(draw):
    batch, kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    q_len, k_len = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    sides = {side: _tokens(draw, batch, length) for side, length in (("q", q_len), ("k", k_len))}
    mask = Mask(
        causal=draw(st.booleans()),
        window=draw(st.sampled_from([None, 1, 2, 4])),
        **{f"{name}_{side}": tensor for side, given in sides.items() for name, tensor in given.items()},
    )
    head_dim, value_dim = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    shapes = (
        (batch, kv_heads * group, q_len, head_dim),
        (batch, kv_heads, k_len, head_dim),
        (batch, kv_heads, k_len, value_dim),
    )
    q, k, v = (torch.randn(shape, generator=generator, dtype=torch.float64) * 2 for shape in shapes)
    bias = None
    if draw(st.booleans()):
        full = (batch, kv_heads * group, q_len, k_len)
        shape = tuple(draw(st.sampled_from([1, size])) for size in full)
        bias = torch.randn(shape, generator=generator, dtype=torch.float64)
    softcap = draw(st.sampled_from([None, None, 1.5]))
    return q, k, v, mask, bias, softcap, draw(st.sampled_from([0.3, 1.0]))


def _compare(q, k, v, mask, bias, softcap, scale, return_lse=False):
    inputs = [x for x in (q, k, v, bias) if x is not None]
    results = []
    for backend in (attention_naive, attention_sdpa):
        leaves = [x.clone().requires_grad_() for x in inputs]
        extra = {"return_lse": True} if return_lse and backend is attention_sdpa else {}
        b = leaves[3] if bias is not None else None
        out, lse = backend(*leaves[:3], mask, scale=scale, softcap=softcap, bias=b, **extra)
        loss = (out * torch.linspace(0.5, 2, out.numel(), dtype=out.dtype).reshape(out.shape)).sum()
        if return_lse:
            loss = loss + torch.where(lse.isfinite(), lse, 0).sum()
        grads = torch.autograd.grad(loss, leaves)
        results.append([out.detach(), *grads, *([lse.detach()] if return_lse else [])])
    for expected, actual in zip(*results, strict=True):
        assert not expected.isnan().any()
        torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("cost_of_a_call", [0, 10**9])
@settings(max_examples=120, deadline=None, derandomize=True)
@given(problem=_problems(), return_lse=st.booleans())
def test_sdpa_equals_naive_forward_and_backward(cost_of_a_call, problem, return_lse):
    """Whether segments are cut out (calls cost nothing) or left to a dense mask (a call costs everything)."""
    before = sdpa_module.SCORES_PER_CALL
    sdpa_module.SCORES_PER_CALL = cost_of_a_call
    try:
        _compare(*problem, return_lse=return_lse)
    finally:
        sdpa_module.SCORES_PER_CALL = before


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("positions", [False, True])
def test_packed_segments_never_build_a_matrix(monkeypatch, causal, positions):
    """Four sequences of 128 tokens and some padding, with and without positions counted anew in each."""
    segments = segments_from_lengths([128] * 4, total=560)
    places = {"position_q": positions_within(segments), "position_k": positions_within(segments)} if positions else {}
    mask = Mask(causal=causal, segment_q=segments, segment_k=segments, **places)
    q, k, v = (torch.randn(2, 4, 560, 8, dtype=torch.float64) for _ in range(3))
    expected, _ = attention_naive(q, k, v, mask, scale=0.3)

    def refuse(*_):
        raise AssertionError("a dense matrix was built")

    monkeypatch.setattr(Mask, "visible", refuse)
    actual, _ = attention_sdpa(q, k, v, mask, scale=0.3)
    torch.testing.assert_close(actual, expected)
