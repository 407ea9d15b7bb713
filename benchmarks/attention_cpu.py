"""Packed segments on the CPU: the course's attention against one call with a dense boolean mask.

    python -m benchmarks.attention_cpu

Each row packs a number of sequences into one, for the forward pass alone and with gradients. The median of the rounds
counts. The baseline is PyTorch's fused attention with a mask that is built before the clock starts.
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.report import Row, print_rows
from benchmarks.timing import time_in_turns
from shared.attention import Mask, attention, packed_segments

TOKENS, HEADS, HEAD_DIM = 1024, 8, 64
SEGMENTS = (1, 2, 4, 8, 16, 32, 64, 128)
ROUNDS = 7


def measure(rounds: int = ROUNDS) -> list[Row]:
    """Return rows in milliseconds."""
    return [
        _measure_packing(count, causal, backward, rounds)
        for causal in (False, True)
        for backward in (False, True)
        for count in SEGMENTS
    ]


def _measure_packing(count: int, causal: bool, backward: bool, rounds: int) -> Row:
    torch.manual_seed(count)
    q, k, v = (torch.randn(1, HEADS, TOKENS, HEAD_DIM, requires_grad=backward) for _ in range(3))
    segments = packed_segments(_lengths(count))
    mask = Mask(causal=causal, segment_q=segments, segment_k=segments)
    dense_mask = mask.visible(TOKENS, TOKENS)[:, None]

    def with_gradients(forward: Callable[[], Tensor]) -> Callable[[], object]:
        return (lambda: torch.autograd.grad(forward().sum(), (q, k, v))) if backward else forward

    functions = {
        "course": with_gradients(lambda: attention(q, k, v, mask)),
        "dense": with_gradients(lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=dense_mask)),
    }
    timings = time_in_turns(functions, rounds, warmup=1, clock=time.perf_counter)
    kind = f"{'causal, ' if causal else ''}{'forward + backward' if backward else 'forward'}"
    name = f"packed attention, {count} × {TOKENS // count} tokens, {kind}"
    return Row.of_cost(name, timings["course"].median_ms, timings["dense"].median_ms, "ms")


def _lengths(count: int) -> list[int]:
    """Return uneven lengths that add up to TOKENS, as images of different sizes have."""
    mean = TOKENS // count
    uneven = [mean + (mean // 4 if i % 2 else -(mean // 4)) for i in range(count)]
    return [TOKENS] if count == 1 else uneven


if __name__ == "__main__":
    torch.set_num_threads(1)
    print_rows(measure())
