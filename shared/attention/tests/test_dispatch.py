"""The choice of the backend, refused arguments and their messages, and 16-bit dtypes."""

import jaxtyping
import pytest
import torch

from shared.attention import Mask, OutputGradient, attention, attention_backward, packed_segments
from shared.attention.dispatch import choose_backend


@pytest.fixture
def untyped():
    """Disable the shape checker, so that our own errors are raised, as users see them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def _random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape).to(dtype)


def test_sdpa_is_chosen_on_the_cpu_and_any_backend_can_be_forced(monkeypatch):
    q = _random(1, 1, 2, 4)
    monkeypatch.delenv("ATTENTION_BACKEND", raising=False)
    assert choose_backend(q, q, q) == "sdpa"
    for name in ("naive", "sdpa"):
        monkeypatch.setenv("ATTENTION_BACKEND", name)
        assert choose_backend(q, q, q) == name
    monkeypatch.setenv("ATTENTION_BACKEND", "triton")
    with pytest.raises(ValueError, match="tensors are on cpu and its kernels run on CUDA only; unset it"):
        attention(q, q, q)
    monkeypatch.setenv("ATTENTION_BACKEND", "flash")
    with pytest.raises(ValueError, match="'flash'; expected one of naive, sdpa, triton"):
        attention(q, q, q)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            ((2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4)),
            r"q has shape \[2, 3, 4\]; expected \[batch, heads, length, head_dim\]",
        ),
        (((1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 5, 4)), r"k and v must agree .* k \[1, 2, 3, 4\], v \[1, 2, 5, 4\]"),
        (((1, 2, 3, 4), (2, 2, 3, 4), (2, 2, 3, 4)), r"q and k must agree in batch and head_dim: q \[1, 2, 3, 4\]"),
        (((1, 2, 3, 8), (1, 2, 3, 4), (1, 2, 3, 4)), r"q and k must agree in batch and head_dim"),
        (((1, 3, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4)), r"3 query heads can't share 2 key heads evenly"),
    ],
)
def test_wrong_shapes_are_named(untyped, shapes, message):
    with pytest.raises(ValueError, match=message):
        attention(*(_random(*shape) for shape in shapes))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (lambda: Mask(window=0), "window is 0; expected at least 1"),
        (
            lambda: Mask(segment_k=torch.zeros(1, 3).long()),
            r"mask.segment_k has shape \[1, 3\]; expected \[2, 5\], or \[1, 5\]",
        ),
        (
            lambda: Mask(position_q=torch.zeros(3, 4).long()),
            r"mask.position_q has shape \[3, 4\]; expected \[2, 4\], or \[1, 4\]",
        ),
        (lambda: Mask(span_q=torch.zeros(4).long()), r"mask.span_q has shape \[4\]; expected \[2, 4\]"),
        (lambda: Mask(segment_q=torch.zeros(1, 4)), r"mask.segment_q is torch.float32; expected integers"),
        (
            lambda: Mask(segment_q=torch.zeros(1, 4, device="meta").long()),
            r"on meta and the queries are on cpu.*mask.to\('cpu'\)",
        ),
    ],
)
def test_wrong_masks_are_named(untyped, mask, message):
    with pytest.raises(ValueError, match=message):
        attention(_random(2, 1, 4, 8), _random(2, 1, 5, 8), _random(2, 1, 5, 8), mask())


@pytest.mark.parametrize("softcap", [0.0, -50.0, float("nan")])
def test_a_softcap_that_is_no_limit_is_named(softcap):
    q = _random(1, 2, 3, 4)
    with pytest.raises(ValueError, match=f"softcap is {softcap}; expected a number above 0"):
        attention(q, q, q, softcap=softcap)


def test_wrong_dtypes_biases_and_outputs_are_named(untyped):
    q, k = _random(1, 2, 3, 4), _random(1, 2, 5, 4)
    with pytest.raises(ValueError, match=r"one floating-point dtype; got torch.float32, torch.bfloat16, torch.float32"):
        attention(q, k.bfloat16(), k)
    with pytest.raises(ValueError, match=r"bias has shape \[1, 2, 5, 3\]; expected \[1, 2, 3, 5\]"):
        attention(q, k, k, bias=_random(1, 2, 5, 3))
    with pytest.raises(ValueError, match=r"lse has shape \[1, 2, 5\]; expected \[1, 2, 3\]"):
        attention_backward(q, k, k, OutputGradient(q, _random(1, 2, 5), q))


@pytest.mark.parametrize("settings", [{}, {"softcap": 2.0}, {"return_lse": True}])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_results_are_close_to_the_oracle(monkeypatch, dtype, settings):
    q, k, v = (_random(2, 2, 9, 16, dtype=dtype) for _ in range(3))
    mask = Mask(causal=True, segment_q=packed_segments([4, 5]), segment_k=packed_segments([4, 5]))
    results = []
    for backend in ("naive", "sdpa"):
        monkeypatch.setenv("ATTENTION_BACKEND", backend)
        result = attention(q, k, v, mask, **settings)
        results.append(result if isinstance(result, tuple) else (result,))
    for expected, actual in zip(*results, strict=True):
        assert actual.dtype == expected.dtype
        torch.testing.assert_close(actual, expected, atol=2e-2, rtol=2e-2)
    assert results[1][0].dtype == dtype
    assert all(lse.dtype == torch.float32 for lse in results[1][1:])


@pytest.mark.parametrize("settings", [{"softcap": 2.0}, {"return_lse": True}])
def test_autocast_does_not_round_the_scores(settings):
    q, k, v = (_random(1, 1, 9, 16) * 4 for _ in range(3))
    expected = attention(q, k, v, **settings)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = attention(q, k, v, **settings)
    torch.testing.assert_close(actual, expected)


def test_a_segment_of_scattered_keys_is_exact(monkeypatch):
    """Segments 0 1 0 are no slice, so the dense mask is used; so it is for keys that no query attends to."""
    q, k, v = (_random(1, 1, 64, 8, dtype=torch.float64) for _ in range(3))
    scattered = torch.arange(64)[None] % 3 - 1
    results = []
    for backend in ("naive", "sdpa"):
        monkeypatch.setenv("ATTENTION_BACKEND", backend)
        results.append(attention(q, k, v, Mask(causal=True, segment_q=scattered, segment_k=scattered)))
    torch.testing.assert_close(*results)
