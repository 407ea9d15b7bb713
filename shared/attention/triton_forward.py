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
from shared.attention.triton_blocks import blocks_to_visit, full_block, partial_block, plan
from shared.attention.triton_mask import across, down, read_tokens, tokens_of, visible
from shared.attention.triton_tiles import ALIGNED, Reach, Rows, Scores, Shape, empty_rows, tiles

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
NOTHING = tl.constexpr(float("-inf"))


def forward(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask, *, scale: float, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """Output [batch, heads, q_len, value_dim] and log-sum-exp [batch, heads, q_len] in float32, natural logarithm.

    q [batch, heads, q_len, head_dim], k [batch, kv_heads, k_len, head_dim], v [batch, kv_heads, k_len, value_dim].
    """
    batch, heads, q_len = q.shape[:3]
    kv_heads, k_len = k.shape[1:3]
    out, lse = empty_results(q, v)
    if out.numel() == 0:
        return out, lse
    tile = tiles("forward", q, v)
    blocks = blocks_to_visit(mask, q_len, k_len, tile.block_q, tile.block_k, owner="queries")
    forward_kernel[(triton.cdiv(q_len, tile.block_q) * batch * heads,)](
        *(Rows.of(x) for x in (q, k, v, out)),
        lse,
        *tokens_of(mask, q_len, k_len),
        blocks,
        Reach.of(mask),
        Scores.of(scale, softcap),
        heads,
        heads // kv_heads,
        SHAPE=Shape.of(q, v, mask, tile.block_q, tile.block_k),
        **tile.options,
    )
    return out, lse


def empty_results(q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the output and the log-sum-exp."""
    out = empty_rows(*q.shape[:3], v.shape[3], like=q)
    return out, torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)


@triton.jit
def forward_kernel(q, k, v, out, lse, queries, keys, blocks, reach, scores, heads, group, SHAPE: tl.constexpr):
    # The last queries of a causal mask see most: they start first, so that short rows fill the gaps at the end.
    q_blocks = tl.cdiv(queries.length, SHAPE.BLOCK_Q)
    block_q = q_blocks - 1 - tl.program_id(0) % q_blocks
    row, head = tl.program_id(0) // q_blocks // heads, tl.program_id(0) // q_blocks % heads
    k, v = head_of(k, row, head // group), head_of(v, row, head // group)

    start = block_q * SHAPE.BLOCK_Q
    index = start + tl.arange(0, SHAPE.BLOCK_Q)
    query = load_rows(head_of(q, row, head), start, queries.length, SHAPE.BLOCK_Q, SHAPE.HEAD_DIM, SHAPE.WIDTH, True)
    own = read_tokens(queries, row, index)
    summed, total, peak = nothing_yet(SHAPE.BLOCK_Q, SHAPE.VALUE_WIDTH)

    last = tl.minimum(start + SHAPE.BLOCK_Q, queries.length) - 1
    walk = plan(blocks, row, block_q, start, last, reach.behind, reach.ahead, keys.length, SHAPE.BLOCK_K)
    for number in range(walk.full):
        block = full_block(blocks, walk, number)
        summed, total, peak = attend(
            summed, total, peak, query, own, k, v, keys, row, block, reach.window, scores, SHAPE, False
        )
    for number in range(walk.partial):
        block = partial_block(blocks, walk, number)
        summed, total, peak = attend(
            summed, total, peak, query, own, k, v, keys, row, block, reach.window, scores, SHAPE, True
        )

    output, log_sum = finish(summed, total, peak)
    store_rows(
        head_of(out, row, head), output, start, queries.length, SHAPE.BLOCK_Q, SHAPE.VALUE_DIM, SHAPE.VALUE_WIDTH
    )
    lse += (row * heads + head).to(tl.int64) * queries.length
    tl.store(lse + index, log_sum, mask=index < queries.length)


@triton.jit
def nothing_yet(ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Before the first block: no weighted values, no weights, no score."""
    return tl.zeros([ROWS, WIDTH], tl.float32), tl.zeros([ROWS], tl.float32), tl.full([ROWS], NOTHING, tl.float32)


@triton.jit
def attend(
    summed, total, peak, query, own, k, v, keys, row, block, window, scores, SHAPE: tl.constexpr, MASKED: tl.constexpr
):  # fmt: skip
    """Take one block of keys into the running sum: weighted values, sum of weights, largest score (base 2)."""
    start = block * SHAPE.BLOCK_K
    key = load_rows(k, start, keys.length, SHAPE.BLOCK_K, SHAPE.HEAD_DIM, SHAPE.WIDTH, MASKED)
    score = tl.dot(query, tl.trans(key), input_precision=SHAPE.PRECISION)
    if scores.squash is not None:
        score = tanh(score * scores.squash)
    if MASKED:
        theirs = read_tokens(keys, row, start + tl.arange(0, SHAPE.BLOCK_K))
        score = tl.where(visible(down(own), across(theirs), window, SHAPE.CAUSAL), score, NOTHING)
    new_peak = tl.maximum(peak, tl.max(score, 1) * scores.sharpness)
    # A row that has seen nothing so far has a peak of −∞, and −∞ − (−∞) is no number.
    reference = tl.where(new_peak == NOTHING, 0.0, new_peak) if MASKED else new_peak
    weight = tl.exp2(score * scores.sharpness - reference[:, None])
    shrink = tl.exp2(peak - reference)
    total = total * shrink + tl.sum(weight, 1)
    value = load_rows(v, start, keys.length, SHAPE.BLOCK_K, SHAPE.VALUE_DIM, SHAPE.VALUE_WIDTH, MASKED)
    summed = tl.dot(weight.to(value.dtype), value, summed * shrink[:, None], input_precision=SHAPE.PRECISION)
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
def head_of(x, row, head):
    """One head of one row of the batch; found in 64 bits, since a long batch has more than 2³¹ numbers."""
    offset = row.to(tl.int64) * x.batch + head.to(tl.int64) * x.head
    return Rows(x.first + tl.multiple_of(offset, ALIGNED), x.batch, x.head, x.row)


@triton.jit
def places(x, start, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Where ROWS vectors lie; the hints let eight numbers of a vector be moved at once."""
    rows, columns = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    first = x.first + tl.multiple_of(start.to(tl.int64) * x.row, ALIGNED)
    return first + tl.multiple_of(rows[:, None] * x.row + columns[None, :], [1, ALIGNED]), rows, columns


@triton.jit
def load_rows(
    x, start, length, ROWS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr, RAGGED: tl.constexpr
):  # fmt: skip
    """ROWS vectors of DIM numbers from `start` on; zeros up to WIDTH, and past the end of the sequence if RAGGED."""
    at, rows, columns = places(x, start, ROWS, WIDTH)
    if RAGGED and WIDTH != DIM:
        return tl.load(at, mask=(start + rows < length)[:, None] & (columns < DIM)[None, :], other=0.0)
    elif RAGGED:
        return tl.load(at, mask=(start + rows < length)[:, None], other=0.0)
    elif WIDTH != DIM:
        return tl.load(at, mask=(columns < DIM)[None, :], other=0.0)
    else:
        return tl.load(at)


@triton.jit
def store_rows(x, numbers, start, length, ROWS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr):
    """Write ROWS vectors, without their padding and without what lies past the end."""
    at, rows, columns = places(x, start, ROWS, WIDTH)
    inside = (start + rows < length)[:, None] & (columns < DIM)[None, :]
    tl.store(at, numbers.to(x.first.dtype.element_ty), mask=inside)
