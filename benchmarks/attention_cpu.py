"""Packed segments on the CPU: our attention against one call with a dense boolean mask, side by side.

    python -m benchmarks.attention_cpu

Each row packs as many sequences into one, forward alone and with gradients; both sides alternate in one process
and the median of the rounds counts. The dense side is PyTorch's own fused attention with a ready-made mask.
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.attention import Mask, attention, packed_segments

TOKENS, HEADS, HEAD_DIM = 1024, 8, 64
SEGMENTS = (1, 2, 4, 8, 16, 32, 64, 128)
ROUNDS = 7


def measure(rounds: int = ROUNDS) -> list[dict]:
    """Rows of name, ours, theirs (milliseconds), ratio (theirs / ours: above 1 we are faster) and unit."""
    return [
        _row(count, causal, backward, rounds)
        for causal in (False, True)
        for backward in (False, True)
        for count in SEGMENTS
    ]


def _row(count: int, causal: bool, backward: bool, rounds: int) -> dict:
    torch.manual_seed(count)
    q, k, v = (torch.randn(1, HEADS, TOKENS, HEAD_DIM, requires_grad=backward) for _ in range(3))
    segments = packed_segments(_lengths(count))
    mask = Mask(causal=causal, segment_q=segments, segment_k=segments)
    dense = mask.visible(TOKENS, TOKENS)[:, None]
    ours, theirs = _side_by_side(
        lambda: _step(lambda: attention(q, k, v, mask), (q, k, v), backward),
        lambda: _step(lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=dense), (q, k, v), backward),
        rounds,
    )
    kind = f"{'causal, ' if causal else ''}{'forward + backward' if backward else 'forward'}"
    name = f"packed attention, {count} × {TOKENS // count} tokens, {kind}"
    return {"name": name, "ours": ours, "theirs": theirs, "ratio": theirs / ours, "unit": "ms"}


def _lengths(count: int) -> list[int]:
    """Uneven lengths around the mean that add up to TOKENS, as images of many sizes have."""
    mean = TOKENS // count
    uneven = [mean + (mean // 4 if i % 2 else -(mean // 4)) for i in range(count)]
    return [TOKENS] if count == 1 else uneven


def _step(forward: Callable[[], Tensor], inputs: tuple[Tensor, ...], backward: bool) -> None:
    out = forward()
    if backward:
        torch.autograd.grad(out.sum(), inputs)


def _side_by_side(ours: Callable[[], None], theirs: Callable[[], None], rounds: int) -> tuple[float, float]:
    """Median milliseconds of each, taken in turns so that a busy moment of the machine hits both."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for call in (ours, theirs):
        call()
    for _ in range(rounds):
        for call, taken in zip((ours, theirs), seconds, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return statistics.median(seconds[0]) * 1000, statistics.median(seconds[1]) * 1000


if __name__ == "__main__":
    torch.set_num_threads(1)
    for row in measure():
        print(f"{row['name']:<62} {row['ours']:8.2f} {row['theirs']:8.2f} {row['unit']}  ×{row['ratio']:.2f}")
