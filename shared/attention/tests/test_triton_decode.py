"""Decoding kernels: the keys of a cache split among programs, against the float64 oracle."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.attention import Mask, attention, triton_decode
from shared.attention.inputs import AttentionInputs
from shared.attention.naive import attention_naive
from shared.attention.tests.triton_cases import (
    DEVICE,
    DTYPES,
    INTERPRETED,
    TOLERANCE,
    UNIT,
    compare,
    framed,
    need_a_device,
    only_triton,
    poisoned,
    problems,
)

pytestmark = need_a_device()
__all__ = ["only_triton", "poisoned"]


def compare_decoding(q, k, v, mask, *, softcap=None, splits=None):
    out, lse = triton_decode.decode(AttentionInputs(q, k, v, mask, 0.3, softcap), splits)
    exact = AttentionInputs(q.double(), k.double(), v.double(), mask, 0.3, softcap)
    expected, expected_lse = attention_naive(exact)
    tolerance = TOLERANCE[q.dtype]
    torch.testing.assert_close(out.double(), expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(lse.double(), expected_lse, atol=min(tolerance, 5e-4), rtol=min(tolerance, 5e-4))


@pytest.mark.filterwarnings("ignore:divide by zero")
@settings(max_examples=12 if INTERPRETED else 60, deadline=None, derandomize=True)
@given(problem=problems(), splits=st.sampled_from([1, 2, 3, 5]))
def test_random_mixtures(problem, splits):
    """The keys are the cache, and only as many queries remain as fit into a tile."""
    (q, k, v, mask), softcap = problem
    few = 6
    q = q[:, :, :few]
    short = {name: tensor[:, :few] for name, tensor in mask.tensors.items() if name.endswith("_q")}
    compare_decoding(q, k, v, Mask(**{**vars(mask), **short}), softcap=softcap, splits=splits)


@pytest.mark.parametrize("filled", [1, 16, 70])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_token_against_a_preallocated_cache(filled, dtype):
    """Slots behind the newest token are never visible, whatever they contain; each batch row has its own length."""
    filled = filled * UNIT
    q = framed(2, 6, 1, 16, dtype=dtype)
    k, v = (framed(2, 2, 90 * UNIT, 16, dtype=dtype) for _ in range(2))
    # Each row of the batch has its own length: the second is one token shorter, where possible.
    newest = torch.tensor([[filled - 1], [max(filled - 2, 0)]], device=DEVICE)
    compare_decoding(q, k, v, Mask(causal=True, position_q=newest), splits=4)
    # Blocks without visible keys are not read: NaN in them has no effect.
    edge = -(-filled // 128) * 128 if not INTERPRETED else -(-filled // 16) * 16
    dirty = [x.clone() for x in (k, v)]
    for x in dirty:
        x[:, :, edge:] = torch.nan
    out, _ = triton_decode.decode(AttentionInputs(q, *dirty, Mask(causal=True, position_q=newest), 0.3), 4)
    assert out.isfinite().all()


def test_counted_keys_and_queries_need_no_lists():
    q = framed(1, 4, 3, 24, dtype=torch.float32)
    k, v = (framed(1, 2, 50 * UNIT, dim, dtype=torch.float32) for dim in (24, 8))
    for mask in (Mask(), Mask(causal=True), Mask(window=20 * UNIT)):
        compare_decoding(q, k, v, mask, splits=3)


def test_attention_decodes_few_queries_against_many_keys_with_gradients(monkeypatch):
    decoded = []
    decode = triton_decode.decode
    monkeypatch.setattr(triton_decode, "decode", lambda inputs: decoded.append(inputs.k.shape[2]) or decode(inputs))
    q = framed(1, 2, 4, 16, dtype=torch.float32)
    k, v = (framed(1, 1, 512, 16, dtype=torch.float32) for _ in range(2))
    window = Mask(causal=True, window=30, position_q=torch.arange(200, 204, device=DEVICE)[None])
    compare(q, k, v, window)
    assert decoded == [512]
    attention(q, k[:, :, :64], v[:, :, :64])
    attention(framed(1, 2, 40, 16, dtype=torch.float32), k, v, window := Mask(window=3))
    assert decoded == [512]
