"""The forward kernel: softmax(q kᵀ) v over one block of keys after another, never holding a whole row of scores.

One program owns a block of queries. For each block of keys it computes a tile of scores, turns it into weights with
the largest score met so far as reference, and adds the weighted values to a running sum; when a larger score turns
up, what has been summed is scaled down (online softmax: arXiv:1805.02867; as attention: arXiv:2205.14135, 2307.08691).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from shared.attention.mask import Mask
from shared.attention.triton_blocks import (
    blocks_to_visit,
    full_block,
    partial_block,
    plan,
    read_tokens,
    tokens_of,
    visible,
)
from shared.attention.triton_tiles import Scores, padded, precision, reach, strides, tiles

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
NOTHING = tl.constexpr(float("-inf"))


def forward(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask, *, scale: float, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """Output [batch, heads, q_len, value_dim] and log-sum-exp [batch, heads, q_len] in float32, natural logarithm.

    q [batch, heads, q_len, head_dim], k [batch, kv_heads, k_len, head_dim], v [batch, kv_heads, k_len, value_dim].
    """
    batch, heads, q_len, head_dim = q.shape
    k_len, value_dim = v.shape[2:]
    out, lse = empty_results(q, v)
    if out.numel() == 0:
        return out, lse
    tile = tiles("forward", q, v)
    queries, keys = tokens_of(mask, q_len, k_len)
    behind, ahead = reach(mask)
    forward_kernel[(triton.cdiv(q_len, tile.block_q) * batch * heads,)](
        q,
        k,
        v,
        out,
        lse,
        strides(q),
        strides(k),
        strides(v),
        strides(out),
        queries,
        keys,
        blocks_to_visit(mask, q_len, k_len, tile.block_q, tile.block_k, owner="queries"),
        mask.window,
        behind,
        ahead,
        *Scores.of(scale, softcap),
        heads,
        heads // k.shape[1],
        CAUSAL=mask.causal,
        HEAD_DIM=head_dim,
        VALUE_DIM=value_dim,
        WIDTH=padded(head_dim),
        VALUE_WIDTH=padded(value_dim),
        BLOCK_Q=tile.block_q,
        BLOCK_K=tile.block_k,
        PRECISION=precision(q),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return out, lse


def empty_results(q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the output and the log-sum-exp."""
    batch, heads, q_len = q.shape[:3]
    # Heads lie side by side in memory: the projection that follows reads them so.
    out = torch.empty(batch, q_len, heads, v.shape[3], dtype=q.dtype, device=q.device).transpose(1, 2)
    return out, torch.empty(batch, heads, q_len, dtype=torch.float32, device=q.device)


@triton.jit
def forward_kernel(
    q,
    k,
    v,
    out,
    lse,
    q_strides,
    k_strides,
    v_strides,
    out_strides,
    queries,
    keys,
    blocks,
    window,
    behind,
    ahead,
    squash,
    sharpness,
    heads,
    group,
    CAUSAL: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    # The last queries of a causal mask see most: they start first, so that short rows fill the gaps at the end.
    q_blocks = tl.cdiv(queries.length, BLOCK_Q)
    block_q = q_blocks - 1 - tl.program_id(0) % q_blocks
    row, head = tl.program_id(0) // q_blocks // heads, tl.program_id(0) // q_blocks % heads
    q = first_of(q, q_strides, row, head)
    k = first_of(k, k_strides, row, head // group)
    v = first_of(v, v_strides, row, head // group)
    out = first_of(out, out_strides, row, head)
    lse += (row * heads + head).to(tl.int64) * queries.length

    start = block_q * BLOCK_Q
    index = start + tl.arange(0, BLOCK_Q)
    query = load_rows(q, start, q_strides[2], queries.length, BLOCK_Q, HEAD_DIM, WIDTH, True)
    position, segment, span = read_tokens(queries, row, index)
    total = tl.zeros([BLOCK_Q], tl.float32)
    peak = tl.full([BLOCK_Q], NOTHING, tl.float32)
    summed = tl.zeros([BLOCK_Q, VALUE_WIDTH], tl.float32)

    last = tl.minimum(start + BLOCK_Q, queries.length) - 1
    full_count, partial_count, live_from, full_from = plan(
        blocks, row, block_q, start, last, behind, ahead, keys.length, BLOCK_K
    )
    for number in range(full_count):
        block = full_block(blocks, number, full_count, live_from, full_from)
        summed, total, peak = attend(
            summed, total, peak, query, position, segment, span, k, v, k_strides, v_strides, keys, row, block,
            window, squash, sharpness, CAUSAL, HEAD_DIM, VALUE_DIM, WIDTH, VALUE_WIDTH, BLOCK_K, PRECISION, False,
        )  # fmt: skip
    for number in range(partial_count):
        block = partial_block(blocks, number, full_count, live_from, full_from)
        summed, total, peak = attend(
            summed, total, peak, query, position, segment, span, k, v, k_strides, v_strides, keys, row, block,
            window, squash, sharpness, CAUSAL, HEAD_DIM, VALUE_DIM, WIDTH, VALUE_WIDTH, BLOCK_K, PRECISION, True,
        )  # fmt: skip

    output, log_sum = finish(summed, total, peak)
    store_rows(out, output, start, out_strides[2], queries.length, BLOCK_Q, VALUE_DIM, VALUE_WIDTH)
    tl.store(lse + index, log_sum, mask=index < queries.length)


@triton.jit
def attend(
    summed,
    total,
    peak,
    query,
    position,
    segment,
    span,
    k,
    v,
    k_strides,
    v_strides,
    keys,
    row,
    block,
    window,
    squash,
    sharpness,
    CAUSAL: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Take one block of keys into the running sum: weighted values, sum of weights, largest score (base 2)."""
    start = block * BLOCK_K
    key = load_rows(k, start, k_strides[2], keys.length, BLOCK_K, HEAD_DIM, WIDTH, MASKED)
    score = tl.dot(query, tl.trans(key), input_precision=PRECISION)
    if squash is not None:
        score = tanh(score * squash)
    if MASKED:
        position_k, segment_k, span_k = read_tokens(keys, row, start + tl.arange(0, BLOCK_K))
        seen = visible(
            position[:, None], segment[:, None], span[:, None],
            position_k[None, :], segment_k[None, :], span_k[None, :], window, CAUSAL,
        )  # fmt: skip
        score = tl.where(seen, score, NOTHING)
    new_peak = tl.maximum(peak, tl.max(score, 1) * sharpness)
    # A row that has seen nothing so far has a peak of −∞, and −∞ − (−∞) is no number.
    reference = tl.where(new_peak == NOTHING, 0.0, new_peak) if MASKED else new_peak
    weight = tl.exp2(score * sharpness - reference[:, None])
    shrink = tl.exp2(peak - reference)
    total = total * shrink + tl.sum(weight, 1)
    value = load_rows(v, start, v_strides[2], keys.length, BLOCK_K, VALUE_DIM, VALUE_WIDTH, MASKED)
    summed = tl.dot(weight.to(value.dtype), value, summed * shrink[:, None], input_precision=PRECISION)
    return summed, total, new_peak


@triton.jit
def finish(summed, total, peak):
    """The mean that the weights make, and the natural log of their sum; zeros and −∞ for a row that saw nothing."""
    saw = total > 0
    divisor = tl.where(saw, total, 1.0)
    log_sum = tl.where(saw, (peak + tl.log2(divisor)) * LN_2, NOTHING)
    return summed / divisor[:, None], log_sum


@triton.jit
def tanh(x):
    """tanh by the one exponential that the hardware has: 1 − 2 / (1 + e²ˣ), right at both ends too."""
    return 1.0 - 2.0 / (1.0 + tl.exp2(x * (2.0 * LOG2_E)))


@triton.jit
def first_of(tensor, strides, row, head):
    """Where one head of one row of the batch begins, in 64 bits: a long batch has more than 2³¹ numbers."""
    return tensor + row.to(tl.int64) * strides[0] + head.to(tl.int64) * strides[1]


@triton.jit
def load_rows(
    tensor,
    start,
    stride,
    length,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    RAGGED: tl.constexpr,
):
    """ROWS vectors of DIM numbers from `start` on, padded with zeros to WIDTH, and past the end where RAGGED."""
    rows, columns = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    at = tensor + start.to(tl.int64) * stride + rows[:, None] * stride + columns[None, :]
    if RAGGED and WIDTH != DIM:
        return tl.load(at, mask=(start + rows < length)[:, None] & (columns < DIM)[None, :], other=0.0)
    elif RAGGED:
        return tl.load(at, mask=(start + rows < length)[:, None], other=0.0)
    elif WIDTH != DIM:
        return tl.load(at, mask=(columns < DIM)[None, :], other=0.0)
    else:
        return tl.load(at)


@triton.jit
def store_rows(
    tensor,
    rows_of_numbers,
    start,
    stride,
    length,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Write ROWS vectors back, without their padding and what lies past the end."""
    rows, columns = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    at = tensor + start.to(tl.int64) * stride + rows[:, None] * stride + columns[None, :]
    inside = (start + rows < length)[:, None] & (columns < DIM)[None, :]
    tl.store(at, rows_of_numbers.to(tensor.dtype.element_ty), mask=inside)
