"""The fused attention kernels on a CUDA GPU: first checked, then timed against other kernels in the same run.

    python -m benchmarks.attention_gpu

First, outputs and gradients on random inputs are compared with the float64 oracle, with new memory filled with NaN.
Then, in bfloat16, each row is one problem and one baseline that PyTorch is forced to use: FlashAttention-2, cuDNN, or
compiled `flex_attention` for masks that only it can express. Rates count the arithmetic of visible pairs only. The
median of many calls counts, timed by events.
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

from benchmarks.report import Row, print_rows
from shared.attention import Mask, attention, packed_segments
from shared.attention.inputs import AttentionInputs
from shared.attention.mask import FULL_ATTENTION
from shared.attention.naive import attention_naive
from shared.cli import command_line
from shared.errors import CourseError

TOKENS, WIDTH = 16_384, 2048
BASELINES = {"FlashAttention-2": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}
# ‖course − oracle‖ / ‖oracle‖, by the precision of the type.
MAX_ERROR = {torch.float32: 1e-4, torch.float16: 3e-3, torch.bfloat16: 2e-2}


@dataclass(frozen=True)
class Problem:
    """Self-attention of `batch` sequences of `length` tokens; `rule` is the mask in the form of flex_attention."""

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
        """Return the operations of a forward pass: 4 · head_dim for every visible pair of every head."""
        simple = not self.mask.tensors and self.mask.window is None
        visible = visible_fraction(self) if not simple else 0.5 if self.mask.causal else 1.0
        return 4 * self.batch * WIDTH * self.length**2 * visible


def visible_fraction(problem: Problem, rows: int = 512) -> float:
    """Return the fraction of visible pairs, counted a few rows at a time."""
    mask, length = problem.mask.filled(problem.length, problem.length, "cuda"), problem.length
    visible = 0.0
    for start in range(0, length, rows):
        part = {name: t[:, start : start + rows] for name, t in mask.tensors.items() if name.endswith("_q")}
        visible_pairs = Mask(**{**vars(mask), **part}).visible(min(rows, length - start), length)
        visible += visible_pairs.float().mean(0).sum().item()
    return visible / length**2


def problems() -> Iterator[Problem]:
    """Yield dense, causal, and all other masks of the algebra, at common lengths."""
    for head_dim in (64, 128):
        for length in (512, 2048, 4096, 16_384):
            yield Problem(f"full, {length:,} tokens, d{head_dim}", TOKENS // length, length, head_dim)
            yield Problem(
                f"causal, {length:,} tokens, d{head_dim}", TOKENS // length, length, head_dim, Mask(causal=True)
            )
    length = 8192
    segments = packed_segments([900, 1500, 300, 2100, 700, 1200, 1492], length).cuda()
    prefix = torch.where(torch.arange(length, device="cuda") < 2000, 0, -1)[None]
    position = torch.arange(length, device="cuda")[None]
    images = torch.where(position % 1024 < 576, position // 1024, -1)
    ragged = torch.where(position < 6000, 0, -1)
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
    """Compare outputs and gradients with float64, in all three types. Raises CourseError at the first wrong one."""
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)  # this fills new memory with NaN
    segments = packed_segments([300, 77, 500], 1000).cuda()
    spans = torch.where(segments == 1, 0, -1)
    masks = (
        Mask(),
        Mask(causal=True),
        Mask(causal=True, window=100),
        Mask(True, None, None, None, segments, segments, spans, spans),
    )
    try:
        for dtype, max_error in MAX_ERROR.items():
            for head_dim in (64, 72, 128, 256):
                for mask in masks:
                    _check_one(dtype, head_dim, mask, max_error)
    finally:
        torch.use_deterministic_algorithms(False)


def _check_one(dtype: torch.dtype, head_dim: int, mask: Mask, max_error: float) -> None:
    q, k, v = (
        torch.randn(2, 1000, heads, head_dim, device="cuda", dtype=dtype).transpose(1, 2).requires_grad_()
        for heads in (4, 2, 2)
    )
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    expected = attention_naive(AttentionInputs(*exact, mask, scale=head_dim**-0.5))[0]
    with patch.dict("os.environ", ATTENTION_BACKEND="triton"):
        out = attention(q, k, v, mask)
    grad = torch.randn_like(out)
    results = [out, *torch.autograd.grad(out, (q, k, v), grad)]
    oracle = [expected, *torch.autograd.grad(expected, exact, grad.double())]
    for name, result, reference in zip(("output", "gradient of q", "of k", "of v"), results, oracle, strict=True):
        error = float((result.double() - reference).norm() / reference.norm())
        if not error < max_error:
            raise CourseError(
                f"{name} is wrong by {error:.2g} of its norm ({dtype}, {head_dim} wide, {mask}); not timed"
            )


def sdpa(backend: SDPBackend, causal: bool) -> Callable:
    """Return PyTorch's function, forced to one of its backends."""

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    return call


def flex(problem: Problem) -> Callable:
    """Return compiled flex_attention with the problem's rule as a block mask."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    blocks = create_block_mask(problem.rule, None, None, problem.length, problem.length, device="cuda")
    compiled = torch.compile(flex_attention)
    return lambda q, k, v: compiled(q, k, v, block_mask=blocks)


def milliseconds(call: Callable[[], object]) -> float:
    """Return the median time of a call on the device."""
    from triton.testing import do_bench

    return do_bench(call, warmup=50, rep=200, return_mode="median")


def times(function: Callable, inputs: tuple[Tensor, ...]) -> tuple[float, float]:
    """Return milliseconds of the forward and the backward pass; NaN if a kernel does not support the problem."""
    try:
        out = function(*inputs)
        grad = torch.randn_like(out)
        with torch.no_grad():
            forward = milliseconds(lambda: function(*inputs))
        return forward, milliseconds(lambda: torch.autograd.grad(out, inputs, grad, retain_graph=True))
    except RuntimeError as error:
        print(f"  left out: {str(error).splitlines()[0]}", file=sys.stderr)
        return math.nan, math.nan


def training_rows(problem: Problem) -> Iterator[Row]:
    """Yield forward and backward rates against every baseline that supports the problem."""
    inputs = problem.inputs()
    course_times = times(lambda q, k, v: attention(q, k, v, problem.mask), inputs)
    if problem.rule is None:
        baselines = {name: sdpa(backend, problem.mask.causal) for name, backend in BASELINES.items()}
    else:
        baselines = {"flex_attention": flex(problem)}
    for name, baseline in baselines.items():
        # The backward pass computes the scores again and four more products: 2.5 times the arithmetic.
        passes = zip(("forward", "backward"), (1, 2.5), course_times, times(baseline, inputs), strict=True)
        for direction, work, course_ms, baseline_ms in passes:
            rates = [work * problem.operations / ms / 1e9 for ms in (course_ms, baseline_ms)]
            yield Row.of_rate(f"{problem.name}, {direction}: {name}", *rates, "TFLOP/s")


def short_rows() -> Iterator[Row]:
    """Yield rates for sequences as short as images, for which launching costs as much as computing."""
    for length in (49, 197, 257, 577, 1024):
        problem = Problem("", 64, length, 64)
        q, k, v = (x.detach() for x in problem.inputs())
        course_ms = milliseconds(lambda q=q, k=k, v=v: attention(q, k, v))
        baseline_ms = milliseconds(lambda q=q, k=k, v=v: F.scaled_dot_product_attention(q, k, v))
        name = f"{length} tokens, d64, batch 64, forward: PyTorch's choice"
        yield Row.of_rate(name, 1 / course_ms, 1 / baseline_ms, "calls/ms")


def decoding_rows() -> Iterator[Row]:
    """Yield rates for one new token against a long cache, 32 query heads on 8 key heads; the baseline is a copy."""
    for length in (4096, 32_768, 131_072, 1_048_576):
        q = torch.randn(1, 32, 1, 128, device="cuda", dtype=torch.bfloat16)
        k, v = (torch.randn(1, length, 8, 128, device="cuda", dtype=torch.bfloat16).transpose(1, 2) for _ in range(2))
        mask = Mask(causal=True, position_q=torch.tensor([[length - 1]], device="cuda"))
        size = 2 * k.numel() * k.element_size()
        course_ms = milliseconds(lambda q=q, k=k, v=v, mask=mask: attention(q, k, v, mask))
        source = torch.randn(size // 8, device="cuda")  # a copy reads and writes half of the bytes each
        copy_ms = milliseconds(lambda source=source: source.clone())
        rates = [size / ms / 1e6 for ms in (course_ms, copy_ms)]
        yield Row.of_rate(f"decoding against {length:,} keys: a copy of as many bytes", *rates, "GB/s")


def million_token_row() -> Row:
    """Return the rate of a causal call with a million tokens, whose dense mask would have 10¹² entries."""
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
    return Row.of_rate("causal, 1,048,576 tokens, d128, forward", rate, None, "TFLOP/s")


def measure() -> list[Row]:
    """Return rows of rates. Raises CourseError without a CUDA GPU, and when a result is wrong."""
    if not torch.cuda.is_available():
        raise CourseError("this benchmark needs a CUDA GPU; use benchmarks.attention_cpu without one")
    torch.manual_seed(0)
    check()
    with patch.dict("os.environ", ATTENTION_BACKEND="triton"):
        rows = [row for problem in problems() for row in training_rows(problem)]
        return [*rows, *short_rows(), *decoding_rows(), million_token_row()]


@command_line()
def main() -> None:
    print_rows(measure())


if __name__ == "__main__":
    sys.exit(main())
