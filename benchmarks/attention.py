"""The fused attention kernels on a CUDA GPU: right first, then fast, beside others' kernels in the same run.

    python -m benchmarks.attention

Before anything is timed, outputs and gradients on fresh random inputs are held to the float64 oracle, with new
memory filled with NaN. Then, in bfloat16, each row is one problem and one rival, which PyTorch is forced to use:
FlashAttention-2, cuDNN, or compiled `flex_attention` for the masks that only it can express. Rates count the
arithmetic of visible pairs alone, so that a mask is judged by what it needs. Medians of many calls, timed by events.
"""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from shared.attention import Mask, attention, packed_segments
from shared.attention.inputs import AttentionInputs
from shared.attention.mask import FULL_ATTENTION
from shared.attention.naive import attention_naive
from shared.cli import command_line
from shared.errors import CourseError

TOKENS, WIDTH = 16_384, 2048
RIVALS = {"FlashAttention-2": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}
# ‖ours − oracle‖ / ‖oracle‖, by the precision of the type.
WORST_ERROR = {torch.float32: 1e-4, torch.float16: 3e-3, torch.bfloat16: 2e-2}


@dataclass(frozen=True)
class Problem:
    """Self-attention of `batch` sequences of `length` tokens under a mask, which `rule` says again for flex_attention."""

    name: str
    batch: int
    length: int
    head_dim: int
    mask: Mask = FULL_ATTENTION
    rule: Callable | None = None

    def inputs(self, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor, Tensor]:
        heads = WIDTH // self.head_dim
        return tuple(
            torch.randn(self.batch, self.length, heads, self.head_dim, device="cuda", dtype=dtype)
            .transpose(1, 2)
            .requires_grad_()
            for _ in range(3)
        )

    @property
    def operations(self) -> float:
        """Of a forward pass: two products of 2 · head_dim operations for every visible pair of every head."""
        plain = not self.mask.tensors and self.mask.window is None
        seen = visible_share(self) if not plain else 0.5 if self.mask.causal else 1.0
        return 4 * self.batch * WIDTH * self.length**2 * seen


def visible_share(problem: Problem, rows: int = 512) -> float:
    """Which share of pairs is visible, counted a few rows at a time."""
    mask, length = problem.mask.filled(problem.length, problem.length, "cuda"), problem.length
    seen = 0.0
    for start in range(0, length, rows):
        part = {name: t[:, start : start + rows] for name, t in mask.tensors.items() if name.endswith("_q")}
        seen += Mask(**{**vars(mask), **part}).visible(min(rows, length - start), length).float().mean(0).sum().item()
    return seen / length**2


def problems() -> Iterator[Problem]:
    """Dense, causal, and every mask of the algebra, at the lengths that people compare."""
    for head_dim in (64, 128):
        for length in (512, 2048, 4096, 16_384):
            yield Problem(f"full, {length:,} tokens, d{head_dim}", TOKENS // length, length, head_dim)
            yield Problem(
                f"causal, {length:,} tokens, d{head_dim}", TOKENS // length, length, head_dim, Mask(causal=True)
            )
    length = 8192
    segments = packed_segments([900, 1500, 300, 2100, 700, 1200, 1492], length).cuda()
    prefix = torch.where(torch.arange(length, device="cuda") < 2000, 0, -1)[None]
    place = torch.arange(length, device="cuda")[None]
    images = torch.where(place % 1024 < 576, place // 1024, -1)
    ragged = torch.where(place < 6000, 0, -1)
    masks = {
        "packed documents": (
            Mask(causal=True, segment_q=segments, segment_k=segments),
            lambda b, h, i, j: (segments[0, i] == segments[0, j]) & (j <= i),
        ),
        "prefix": (
            Mask(causal=True, span_q=prefix, span_k=prefix),
            lambda b, h, i, j: (j <= i) | ((prefix[0, i] == 0) & (prefix[0, j] == 0)),
        ),
        "images among text": (
            Mask(causal=True, span_q=images, span_k=images),
            lambda b, h, i, j: (j <= i) | ((images[0, i] == images[0, j]) & (images[0, j] >= 0)),
        ),
        "sliding window": (Mask(causal=True, window=1024), lambda b, h, i, j: (j <= i) & (i - j < 1024)),
        "ragged": (Mask(segment_k=ragged), lambda b, h, i, j: ragged[0, j] == 0),
    }
    for name, (mask, rule) in masks.items():
        yield Problem(f"{name}, {length:,} tokens, d128", 2, length, 128, mask, rule)


def check() -> None:
    """Outputs and gradients against float64, in all three types. Raises CourseError at the first that is off."""
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)  # which is what fills new memory with NaN
    segments = packed_segments([300, 77, 500], 1000).cuda()
    spans = torch.where(segments == 1, 0, -1)
    masks = (
        Mask(),
        Mask(causal=True),
        Mask(causal=True, window=100),
        Mask(True, None, None, None, segments, segments, spans, spans),
    )
    try:
        for dtype, worst in WORST_ERROR.items():
            for head_dim in (64, 72, 128, 256):
                for mask in masks:
                    _check_one(dtype, head_dim, mask, worst)
    finally:
        torch.use_deterministic_algorithms(False)


def _check_one(dtype: torch.dtype, head_dim: int, mask: Mask, worst: float) -> None:
    q, k, v = (
        torch.randn(2, 1000, heads, head_dim, device="cuda", dtype=dtype).transpose(1, 2).requires_grad_()
        for heads in (4, 2, 2)
    )
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    expected = attention_naive(AttentionInputs(*exact, mask, scale=head_dim**-0.5))[0]
    with patch.dict("os.environ", ATTENTION_BACKEND="triton"):
        out = attention(q, k, v, mask)
    grad = torch.randn_like(out)
    ours = [out, *torch.autograd.grad(out, (q, k, v), grad)]
    theirs = [expected, *torch.autograd.grad(expected, exact, grad.double())]
    for name, mine, right in zip(("output", "gradient of q", "of k", "of v"), ours, theirs, strict=True):
        error = float((mine.double() - right).norm() / right.norm())
        if not error < worst:
            raise CourseError(f"{name} is off by {error:.2g} of its norm ({dtype}, {head_dim} wide, {mask}); no timing")


def sdpa(backend: SDPBackend, causal: bool) -> Callable:
    """PyTorch's function, forced to one of its backends."""

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    return call


def flex(problem: Problem) -> Callable:
    """Compiled flex_attention with the problem's rule as a block mask."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    blocks = create_block_mask(problem.rule, None, None, problem.length, problem.length, device="cuda")
    compiled = torch.compile(flex_attention)
    return lambda q, k, v: compiled(q, k, v, block_mask=blocks)


def milliseconds(call: Callable[[], object]) -> float:
    """The median time of a call on the device."""
    from triton.testing import do_bench

    return do_bench(call, warmup=50, rep=200, return_mode="median")


def times(function: Callable, inputs: tuple[Tensor, ...]) -> tuple[float, float]:
    """Milliseconds of the forward pass and of the backward pass; NaN where a kernel refuses the problem."""
    try:
        out = function(*inputs)
        grad = torch.randn_like(out)
        with torch.no_grad():
            forward = milliseconds(lambda: function(*inputs))
        return forward, milliseconds(lambda: torch.autograd.grad(out, inputs, grad, retain_graph=True))
    except RuntimeError as error:
        print(f"  left out: {str(error).splitlines()[0]}", file=sys.stderr)
        return math.nan, math.nan


def training_rows(problem: Problem) -> Iterator[dict]:
    """Forward and backward rates beside every rival that can do the problem."""
    inputs = problem.inputs()
    ours = times(lambda q, k, v: attention(q, k, v, problem.mask), inputs)
    if problem.rule is None:
        rivals = {name: sdpa(backend, problem.mask.causal) for name, backend in RIVALS.items()}
    else:
        rivals = {"flex_attention": flex(problem)}
    for name, rival in rivals.items():
        theirs = times(rival, inputs)
        # The backward pass computes the scores again and makes four more products: 2.5 times the arithmetic.
        for way, work, mine, other in zip(("forward", "backward"), (1, 2.5), ours, theirs, strict=True):
            rates = [work * problem.operations / ms / 1e9 for ms in (mine, other)]
            yield _row(f"{problem.name}, {way}, beside {name}", *rates, "TFLOP/s")


def short_rows() -> Iterator[dict]:
    """Sequences as short as images are, where launching costs as much as computing: microseconds end to end."""
    for length in (49, 197, 257, 577, 1024):
        problem = Problem("", 64, length, 64)
        q, k, v = (x.detach() for x in problem.inputs())
        ours = milliseconds(lambda q=q, k=k, v=v: attention(q, k, v))
        theirs = milliseconds(lambda q=q, k=k, v=v: F.scaled_dot_product_attention(q, k, v))
        yield _row(
            f"{length} tokens, d64, batch 64, forward, beside PyTorch's choice", 1 / ours, 1 / theirs, "calls/ms"
        )


def decoding_rows() -> Iterator[dict]:
    """One new token against a long cache, 32 query heads on 8 key heads, beside copying as many bytes."""
    for length in (4096, 32_768, 131_072, 1_048_576):
        q = torch.randn(1, 32, 1, 128, device="cuda", dtype=torch.bfloat16)
        k, v = (torch.randn(1, length, 8, 128, device="cuda", dtype=torch.bfloat16).transpose(1, 2) for _ in range(2))
        mask = Mask(causal=True, position_q=torch.tensor([[length - 1]], device="cuda"))
        size = 2 * k.numel() * k.element_size()
        ours = milliseconds(lambda q=q, k=k, v=v, mask=mask: attention(q, k, v, mask))
        source = torch.randn(size // 8, device="cuda")  # a copy reads and writes: half the bytes each way
        copy = milliseconds(lambda source=source: source.clone())
        yield _row(f"decoding against {length:,} keys, beside a copy", size / ours / 1e6, size / copy / 1e6, "GB/s")


def million_row() -> dict:
    """A million tokens in one causal call; a dense mask of it would hold 10¹² places."""
    q, k, v = (
        torch.randn(1, 2**20, heads, 128, device="cuda", dtype=torch.bfloat16).transpose(1, 2) for heads in (4, 1, 1)
    )
    attention(q, k, v, Mask(causal=True))
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    attention(q, k, v, Mask(causal=True))
    end.record()
    torch.cuda.synchronize()
    rate = 4 * 4 * 128 * 2**40 / 2 / start.elapsed_time(end) / 1e9
    return _row("causal, 1,048,576 tokens, d128, forward", rate, None, "TFLOP/s")


def _row(name: str, ours: float, theirs: float | None, unit: str) -> dict:
    return {
        "name": name,
        "ours": ours,
        "theirs": theirs,
        "ratio": None if theirs is None else ours / theirs,
        "unit": unit,
    }


def measure() -> list[dict]:
    """Rows of name, ours, theirs, ratio (ours / theirs: above 1 we are ahead) and unit.

    Raises CourseError without a CUDA GPU, and when a result is wrong.
    """
    if not torch.cuda.is_available():
        raise CourseError("the attention benchmark needs a CUDA GPU; without one, benchmarks.attention_cpu measures")
    torch.manual_seed(0)
    check()
    with patch.dict("os.environ", ATTENTION_BACKEND="triton"):
        rows = [row for problem in problems() for row in training_rows(problem)]
        return [*rows, *short_rows(), *decoding_rows(), million_row()]


@command_line()
def main() -> None:
    for row in measure():
        theirs, ratio = (math.nan if row[key] is None else row[key] for key in ("theirs", "ratio"))
        print(f"{row['name']:<72} {row['ours']:9.1f} {theirs:9.1f} {row['unit']:<8} ×{ratio:.2f}")


if __name__ == "__main__":
    sys.exit(main())
