"""Problems for the kernels, and how their answers are held to the float64 oracle.

Where there is a GPU the tests run on it; else in Triton's interpreter, which must be asked for before Triton is
imported, so `test_triton_interpreter.py` runs these files in a process of its own.
"""

import os

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from shared.attention import Mask, attention
from shared.attention.inputs import AttentionInputs
from shared.attention.naive import attention_naive

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
# Tiles have 16 × 16 places in the interpreter, and about eight times that on a GPU.
UNIT = 1 if INTERPRETED else 8
# The interpreter multiplies bfloat16 wrongly; a GPU has to get it right.
DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])
# Rounding of the weights to the type of the values, of sums of a few dozen of them.
TOLERANCE = {torch.float32: 1e-5 if INTERPRETED else 2e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def need_a_device() -> list:
    """The marks of a file of kernel tests; the file is left out where no kernel can run in this process."""
    pytest.importorskip("triton")
    if not INTERPRETED and not torch.cuda.is_available():
        pytest.skip("no GPU; test_triton_interpreter.py runs this file", allow_module_level=True)
    if INTERPRETED:
        _search_once()
    return [] if INTERPRETED else [pytest.mark.gpu]


def _search_once() -> None:
    """Halve the interpreter's time: at every nested kernel call it searches all of Triton's language for functions to
    replace, which the launch has already done."""
    import triton.language as tl
    from triton.runtime import interpreter

    replace = interpreter._patch_lang

    def replace_once(function):
        languages = [x for x in function.__globals__.values() if x is tl or x is tl.core]
        todo = any(tl.core.is_builtin(language.load) for language in languages)
        return replace(function) if todo else interpreter._LangPatchScope()

    interpreter._patch_lang = replace_once


@pytest.fixture(autouse=True)
def only_triton(monkeypatch):
    """Send every call of `attention` to the kernels; it raises where they can't compute it."""
    monkeypatch.setenv("ATTENTION_BACKEND", "triton")


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Fill new memory with NaN (or −1) and frame it by more: elements never written and writes outside are detected."""
    frames, frame = [], 4096

    def poisoned_empty(*shape, dtype=None, device=None, **_):
        shape = torch.Size(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)
        dtype = dtype or torch.get_default_dtype()
        poison = torch.nan if dtype.is_floating_point else -1
        memory = torch.full((shape.numel() + 2 * frame,), poison, dtype=dtype, device=device)
        frames.append(memory)
        return memory[frame : frame + shape.numel()].view(shape)

    def poisoned_empty_like(like, **_):
        order = sorted(range(like.ndim), key=lambda axis: -like.stride(axis))
        dense = poisoned_empty([like.shape[axis] for axis in order], dtype=like.dtype, device=like.device)
        return dense.permute([order.index(axis) for axis in range(like.ndim)])

    monkeypatch.setattr(torch, "empty", poisoned_empty)
    monkeypatch.setattr(torch, "empty_like", poisoned_empty_like)
    yield
    for memory in frames:
        outside = torch.cat([memory[:frame], memory[-frame:]])
        assert outside.isnan().all() if memory.is_floating_point() else (outside == -1).all(), "written outside"


def framed(*shape: int, dtype: torch.dtype, spread: float = 1.0) -> Tensor:
    """Return random numbers framed by NaN: [batch, heads, length, dim], stored as [batch, length, heads, dim]."""
    batch, heads, length, dim = shape
    memory = torch.full((batch, length + 20, heads, dim + 8), torch.nan, dtype=dtype, device=DEVICE)
    memory[:, 4 : 4 + length, :, :dim] = torch.randn(batch, length, heads, dim, device=DEVICE) * spread
    return memory[:, 4 : 4 + length, :, :dim].transpose(1, 2)


def compare(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Mask,
    *,
    scale: float = 0.3,
    softcap: float | None = None,
    gradients: bool = True,
) -> None:
    """Assert that output, log-sum-exp and the gradients of q, k and v equal the oracle's."""
    tolerance = TOLERANCE[q.dtype]
    exact = [x.double().detach().requires_grad_(gradients) for x in (q, k, v)]
    tensors = [x.detach().requires_grad_(gradients) for x in (q, k, v)]
    expected, expected_lse = attention_naive(AttentionInputs(*exact, mask, scale, softcap))
    out, lse = attention(*tensors, mask, scale=scale, softcap=softcap, return_lse=True)
    assert out.dtype == q.dtype and lse.dtype == torch.float32
    torch.testing.assert_close(out.double(), expected, atol=tolerance, rtol=tolerance)
    lse_tolerance = min(tolerance, 5e-4)
    torch.testing.assert_close(lse.double(), expected_lse, atol=lse_tolerance, rtol=lse_tolerance)
    if not gradients:
        return
    grad_out, grad_lse = torch.randn_like(out), torch.randn_like(lse)
    expected = torch.autograd.grad([expected, expected_lse], exact, [grad_out.double(), grad_lse.double()])
    actual = torch.autograd.grad([out, lse], tensors, [grad_out, grad_lse])
    for name, gradient, exact_gradient in zip("qkv", actual, expected, strict=True):
        assert gradient.dtype == q.dtype
        # Gradients sum over many pairs: their rounding is measured relative to the largest of them.
        size = max(float(exact_gradient.abs().max()), 1.0)
        worst = float((gradient.double() - exact_gradient).abs().nan_to_num(torch.inf).max()) / size
        assert worst < 2 * tolerance, f"gradient of {name} is off by {worst:.2g} of its largest"


@st.composite
def problems(draw):
    """Draw everything at once: any mask, ragged lengths, grouped heads, odd widths, softcap, any dtype."""
    batch, kv_heads, group = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    q_len, k_len = draw(st.integers(1, 40 * UNIT)), draw(st.integers(1, 40 * UNIT))
    sides = {side: _tokens(draw, batch, length) for side, length in (("q", q_len), ("k", k_len))}
    mask = Mask(
        causal=draw(st.booleans()),
        window=draw(st.sampled_from([None, None, 1, 5 * UNIT, 17 * UNIT])),
        **{f"{name}_{side}": tensor for side, tensors in sides.items() for name, tensor in tensors.items()},
    )
    torch.manual_seed(draw(st.integers(0, 2**16)))
    dtype = draw(st.sampled_from(DTYPES))
    head_dim, value_dim = draw(st.sampled_from([16, 24, 32])), draw(st.sampled_from([8, 16, 40]))
    q = framed(batch, kv_heads * group, q_len, head_dim, dtype=dtype)
    k = framed(batch, kv_heads, k_len, head_dim, dtype=dtype)
    v = framed(batch, kv_heads, k_len, value_dim, dtype=dtype)
    return (q, k, v, mask), draw(st.sampled_from([None, None, 1.5]))


def _tokens(draw, batch: int, length: int) -> dict[str, Tensor]:
    """Draw positions, segments and spans of one side, mostly in runs, each sometimes left out or shared."""

    def integers(low: int, high: int) -> Tensor:
        generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
        numbers = torch.randint(low, high + 1, (draw(st.sampled_from([1, batch])), length), generator=generator)
        numbers = numbers if draw(st.integers(0, 3)) == 0 else numbers.sort(1).values
        return numbers.to(DEVICE, draw(st.sampled_from([torch.int32, torch.int64])))

    tensors = {}
    if draw(st.booleans()):
        tensors["position"] = integers(0, length)
    if draw(st.booleans()):
        tensors["segment"] = integers(-1, 2)
    if draw(st.booleans()):
        tensors["span"] = integers(-1, 2)
    return tensors


def row(*numbers: int) -> Tensor:
    """Return one row of a mask's integers, [1, length × UNIT]: each is repeated for UNIT tokens."""
    return torch.tensor(numbers, device=DEVICE).repeat_interleave(UNIT)[None]


def runs(*lengths_and_numbers: tuple[int, int]) -> Tensor:
    """Return a row of runs: (20, 0), (30, 1) is twenty times 0 and thirty times 1 (each times UNIT)."""
    return row(*(number for length, number in lengths_and_numbers for _ in range(length)))


def count(start: int, length: int) -> Tensor:
    """Return the positions start, start + 1, … of length × UNIT tokens."""
    return torch.arange(start * UNIT, (start + length) * UNIT, device=DEVICE)[None]


def named_masks() -> dict[str, tuple[Mask, int, int]]:
    """Return the masks of the course, with the lengths of queries and keys (in UNITs); README.md draws each of them."""
    packed = runs((19, 0), (22, 1), (4, -1))
    documents = torch.cat([runs((7, 0), (33, 1)), runs((40, 0))])
    prefix = runs((21, 0), (19, -1))
    unequal = torch.cat([prefix, runs((8, 0), (32, -1))])
    images = runs((3, -1), (18, 0), (5, -1), (14, 1))
    return {
        "image": (Mask(), 33, 33),
        "cross": (Mask(), 8, 45),
        "causal": (Mask(causal=True), 40, 40),
        "more queries than keys": (Mask(causal=True), 40, 20),
        "sliding window": (Mask(causal=True, window=9 * UNIT), 50, 50),
        "window both ways": (Mask(window=20 * UNIT), 50, 45),
        "window past the keys": (Mask(window=4 * UNIT), 50, 20),
        "packed images": (Mask(segment_q=packed, segment_k=packed), 45, 45),
        "packed documents": (Mask(causal=True, segment_q=documents, segment_k=documents), 40, 40),
        "prefix": (Mask(causal=True, span_q=prefix, span_k=prefix), 40, 40),
        "prefixes of unequal lengths": (Mask(causal=True, span_q=unequal, span_k=unequal), 40, 40),
        "images among text": (Mask(causal=True, span_q=images, span_k=images), 40, 40),
        "ragged batch": (Mask(segment_k=torch.cat([runs((30, 0)), runs((9, 0), (21, -1))])), 20, 30),
        "interleaved": (Mask(segment_q=runs((6, -1), (30, 0), (4, 1)), segment_k=runs((16, 0), (20, 1))), 40, 36),
        "chunked prefill": (Mask(causal=True, position_q=count(20, 20)), 20, 45),
        "a block of a ring": (Mask(causal=True, position_q=count(30, 30), position_k=count(15, 40)), 30, 40),
        "no visible keys": (Mask(segment_q=runs((20, -1))), 20, 20),
    }
