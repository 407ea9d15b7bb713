"""sdpa against the float64 oracle, forward and gradients, over random mixtures of all features of the mask."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.attention import Mask, packed_segments
from shared.attention import sdpa as sdpa_module
from shared.attention.inputs import AttentionInputs
from shared.attention.naive import attention_naive
from shared.attention.sdpa import attention_sdpa
from shared.transformer import positions_within_segments


def _tokens(draw, batch: int, length: int) -> dict[str, torch.Tensor]:
    """Draw positions, segments and spans of one side, each sometimes left out or shared by the batch."""

    def integers(low: int, high: int, in_order: bool) -> torch.Tensor:
        rows = draw(st.sampled_from([1, batch]))
        row = st.lists(st.integers(low, high), min_size=length, max_size=length)
        return torch.tensor([sorted(r) if in_order else r for r in (draw(row) for _ in range(rows))])

    tensors = {}
    if draw(st.booleans()):
        tensors["position"] = integers(0, length, draw(st.booleans()))
    if draw(st.booleans()):
        tensors["segment"] = integers(-1, 2, draw(st.booleans()))
    if draw(st.booleans()):
        tensors["span"] = integers(-1, 1, True)
    return tensors


def _inputs(draw, batch: int, kv_heads: int, group: int, q_len: int, k_len: int) -> list[torch.Tensor]:
    torch.manual_seed(draw(st.integers(0, 2**16)))
    head_dim, value_dim = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    shapes = (
        (batch, kv_heads * group, q_len, head_dim),
        (batch, kv_heads, k_len, head_dim),
        (batch, kv_heads, k_len, value_dim),
    )
    return [torch.randn(shape, dtype=torch.float64) * 2 for shape in shapes]


@st.composite
def _packed_problems(draw):
    """Draw runs of segments on both sides, sometimes a segment that appears twice, and positions that may skip."""

    def side(rows: int) -> dict[str, torch.Tensor]:
        runs = st.lists(st.tuples(st.integers(-1, 3), st.integers(1, 4)), min_size=3, max_size=3)
        length = draw(st.integers(4, 8))
        segments = [[number for number, times in draw(runs) for _ in range(times)] for _ in range(rows)]
        numbers = {"segment": [(row + row[-1:] * length)[:length] for row in segments]}
        if draw(st.booleans()):
            steps = st.lists(st.sampled_from([1, 1, 1, 1, 1, 2]), min_size=length, max_size=length)
            start = draw(st.integers(0, 1))
            numbers["position"] = [[start + at for at in itertools.accumulate(draw(steps))] for _ in range(rows)]
        return {name: torch.tensor(row) for name, row in numbers.items()}

    batch = draw(st.integers(1, 2))
    rows = draw(st.sampled_from([1, batch]))
    sides = {name: side(rows) for name in "qk"}
    if draw(st.booleans()):
        sides["k"] = sides["q"]
    mask = Mask(
        causal=draw(st.sampled_from([False, True, True])),
        window=draw(st.sampled_from([None, None, 2, 3])),
        **{f"{name}_{side}": tensor for side, tensors in sides.items() for name, tensor in tensors.items()},
    )
    lengths = (sides[side]["segment"].shape[1] for side in "qk")
    return AttentionInputs(*_inputs(draw, batch, 1, draw(st.integers(1, 2)), *lengths), mask, scale=0.7)


@st.composite
def _problems(draw):
    batch, kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    q_len, k_len = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    sides = {side: _tokens(draw, batch, length) for side, length in (("q", q_len), ("k", k_len))}
    mask = Mask(
        causal=draw(st.booleans()),
        window=draw(st.sampled_from([None, 1, 2, 4])),
        **{f"{name}_{side}": tensor for side, tensors in sides.items() for name, tensor in tensors.items()},
    )
    q, k, v = _inputs(draw, batch, kv_heads, group, q_len, k_len)
    bias = None
    if draw(st.booleans()):
        full = (batch, kv_heads * group, q_len, k_len)
        bias = torch.randn(tuple(draw(st.sampled_from([1, size])) for size in full), dtype=torch.float64)
    softcap = draw(st.sampled_from([None, None, 1.5]))
    return AttentionInputs(q, k, v, mask, draw(st.sampled_from([0.3, 1.0])), softcap, bias)


def _compare(inputs: AttentionInputs, return_lse=False):
    tensors = [x for x in (inputs.q, inputs.k, inputs.v, inputs.bias) if x is not None]
    results = []
    for backend in (attention_naive, attention_sdpa):
        leaves = [x.clone().requires_grad_() for x in tensors]
        extra = {"return_lse": True} if return_lse and backend is attention_sdpa else {}
        bias = leaves[3] if inputs.bias is not None else None
        q, k, v = leaves[:3]
        out, lse = backend(replace(inputs, q=q, k=k, v=v, bias=bias), **extra)
        loss = (out * torch.linspace(0.5, 2, out.numel(), dtype=out.dtype).reshape(out.shape)).sum()
        if return_lse:
            loss = loss + torch.where(lse.isfinite(), lse, 0).sum()
        grads = torch.autograd.grad(loss, leaves)
        results.append([out.detach(), *grads, *([lse.detach()] if return_lse else [])])
    for expected, actual in zip(*results, strict=True):
        assert not expected.isnan().any()
        torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)


@pytest.fixture(params=["cutting is free", "cutting never pays"])
def _price(request):
    """Send small problems both ways: segments cut out one by one, or a dense mask."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sdpa_module, "SCORES_PER_CALL", 0 if request.param == "cutting is free" else 10**9)
        yield


# The fixture applies to all examples of a test: the price is the same for each.
ONE_PRICE = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=100, **ONE_PRICE)
@given(problem=_problems(), return_lse=st.booleans())
def test_sdpa_equals_naive_forward_and_backward(_price, problem, return_lse):
    _compare(problem, return_lse=return_lse)


@settings(max_examples=200, **ONE_PRICE)
@given(problem=_packed_problems())
def test_sdpa_equals_naive_on_packed_segments(_price, problem):
    _compare(problem)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("with_positions", [False, True])
def test_packed_segments_never_build_a_matrix(monkeypatch, causal, with_positions):
    """Four sequences of 128 tokens and some padding, with and without positions that restart in each."""
    segments = packed_segments([128] * 4, total=560)
    positions = (
        {"position_q": positions_within_segments(segments), "position_k": positions_within_segments(segments)}
        if with_positions
        else {}
    )
    mask = Mask(causal=causal, segment_q=segments, segment_k=segments, **positions)
    q, k, v = (torch.randn(2, 4, 560, 8, dtype=torch.float64) for _ in range(3))
    inputs = AttentionInputs(q, k, v, mask, scale=0.3)
    expected, _ = attention_naive(inputs)

    def refuse(*_):
        raise AssertionError("a dense matrix was built")

    monkeypatch.setattr(Mask, "visible", refuse)
    actual, _ = attention_sdpa(inputs)
    torch.testing.assert_close(actual, expected)


def test_training_in_half_precision_on_a_cpu_attends_in_float32(monkeypatch):
    """The fused backward pass is slow in half precision, and autocast must not convert its arguments back."""
    dtypes, fused = [], torch.nn.functional.scaled_dot_product_attention

    def record(q, *arguments, **options):
        dtypes.append(q.dtype)
        return fused(q, *arguments, **options)

    monkeypatch.setattr("shared.attention.sdpa.F.scaled_dot_product_attention", record)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 5, 8, dtype=torch.bfloat16) for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        assert attention_sdpa(AttentionInputs(q, k, v, Mask(), 8**-0.5))[0].dtype == torch.bfloat16
        trained, _ = attention_sdpa(AttentionInputs(q, k, v.requires_grad_(), Mask(), 8**-0.5))
    assert dtypes == [torch.bfloat16, torch.float32] and trained.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad(trained.sum(), v)
    expected = torch.softmax(q.float() @ k.float().mT / 8**0.5, -1).sum(-2)[..., None].expand(v.shape)
    torch.testing.assert_close(gradient.float(), expected, atol=2e-2, rtol=2e-2)
