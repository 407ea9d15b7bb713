"""The forward kernel: softmax(q kᵀ) v over one block of keys after another, never storing a whole row of scores.

One program owns a block of queries. For each block of keys it computes a tile of scores, exponentiates them relative
to the largest score so far, and adds the weighted values to an accumulator. When a larger score appears, the
accumulator is scaled down (online softmax: arXiv:1805.02867; as attention: arXiv:2205.14135, 2307.08691).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from shared.attention.inputs import AttentionInputs
from shared.attention.triton_blocks import Problem, blocks_to_visit, full_block, partial_block, plan_visits
from shared.attention.triton_launch import ALIGNMENT, InputRows, Rows, Shape, empty_rows, tiles
from shared.attention.triton_mask import as_columns, as_rows, load_tokens, visible

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
MINUS_INFINITY = tl.constexpr(float("-inf"))


def forward(inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
    """Return the output [batch, heads, q_len, value_dim] and log-sum-exp [batch, heads, q_len] in float32."""
    q, v, k_len = inputs.q, inputs.v, inputs.k.shape[2]
    batch, heads, q_len = q.shape[:3]
    out, lse = empty_results(q, v)
    if out.numel() == 0:
        return out, lse
    tile = tiles("forward", q, v)
    blocks = blocks_to_visit(inputs.mask, q_len, k_len, tile.block_q, tile.block_k, owner="queries")
    forward_kernel[(triton.cdiv(q_len, tile.block_q) * batch * heads,)](
        InputRows.of(inputs),
        Rows.of(out),
        lse,
        Problem.of(inputs, blocks),
        SHAPE=Shape.of(inputs, tile.block_q, tile.block_k),
        **tile.options,
    )
    return out, lse


def empty_results(q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Allocate the output and the log-sum-exp."""
    batch, heads, q_len = q.shape[:3]
    out = empty_rows(batch, heads, q_len, v.shape[3], like=q)
    return out, torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)


@triton.jit
def forward_kernel(inputs, out, lse, problem, SHAPE: tl.constexpr):
    """Compute the output and log-sum-exp of one block of queries of one head."""
    # The last queries of a causal mask attend to most keys: they start first, so that short rows fill gaps at the end.
    q_len, heads = problem.queries.length, problem.heads
    q_blocks = tl.cdiv(q_len, SHAPE.BLOCK_Q)
    block_q = q_blocks - 1 - tl.program_id(0) % q_blocks
    row, head = tl.program_id(0) // q_blocks // heads, tl.program_id(0) // q_blocks % heads
    kv_head = head // problem.group
    keys_and_values = head_of(inputs.k, row, kv_head), head_of(inputs.v, row, kv_head)

    start = block_q * SHAPE.BLOCK_Q
    index = start + tl.arange(0, SHAPE.BLOCK_Q)
    query = load_rows(head_of(inputs.q, row, head), start, q_len, SHAPE.BLOCK_Q, SHAPE.HEAD_DIM, SHAPE.WIDTH, True)
    query_tokens = load_tokens(problem.queries, row, index)
    accumulator, total, peak = empty_softmax(SHAPE.BLOCK_Q, SHAPE.VALUE_WIDTH)

    last = tl.minimum(start + SHAPE.BLOCK_Q, q_len) - 1
    reach = (problem.reach.behind, problem.reach.ahead)
    plan = plan_visits(problem.blocks, row, block_q, (start, last), reach, problem.keys.length, SHAPE.BLOCK_K)
    for number in range(plan.full):
        place = (row, full_block(problem.blocks, plan, number))
        accumulator, total, peak = attend(
            (accumulator, total, peak), (query, query_tokens), keys_and_values, problem, place, SHAPE, False
        )
    for number in range(plan.partial):
        place = (row, partial_block(problem.blocks, plan, number))
        accumulator, total, peak = attend(
            (accumulator, total, peak), (query, query_tokens), keys_and_values, problem, place, SHAPE, True
        )

    output, log_sum = normalize(accumulator, total, peak)
    store_rows(head_of(out, row, head), output, start, q_len, SHAPE.BLOCK_Q, SHAPE.VALUE_DIM, SHAPE.VALUE_WIDTH)
    lse += (row * heads + head).to(tl.int64) * q_len
    tl.store(lse + index, log_sum, mask=index < q_len)


@triton.jit
def empty_softmax(ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Return the state before the first block: accumulated values, sum of weights, largest score."""
    return (
        tl.zeros([ROWS, WIDTH], tl.float32),
        tl.zeros([ROWS], tl.float32),
        tl.full([ROWS], MINUS_INFINITY, tl.float32),
    )


@triton.jit
def attend(state, queries, keys_and_values, problem, place, SHAPE: tl.constexpr, MASKED: tl.constexpr):
    """Add one block of keys to the state: accumulated values, sum of weights, largest score (base 2).

    `queries` are (vectors, tokens), `place` is (batch row, block of keys).
    """
    accumulator, total, peak = state
    query, query_tokens = queries
    k, v = keys_and_values
    row, block = place
    start, k_len, scores = block * SHAPE.BLOCK_K, problem.keys.length, problem.scores
    key = load_rows(k, start, k_len, SHAPE.BLOCK_K, SHAPE.HEAD_DIM, SHAPE.WIDTH, MASKED)
    score = tl.dot(query, tl.trans(key), input_precision=SHAPE.PRECISION)
    if scores.inner is not None:
        score = tanh(score * scores.inner)
    if MASKED:
        key_tokens = load_tokens(problem.keys, row, start + tl.arange(0, SHAPE.BLOCK_K))
        pairs = visible(as_rows(query_tokens), as_columns(key_tokens), problem.reach.window, SHAPE.CAUSAL)
        score = tl.where(pairs, score, MINUS_INFINITY)
    new_peak = tl.maximum(peak, tl.max(score, 1) * scores.outer)
    # A row without a visible key so far has a peak of −∞, and −∞ − (−∞) is not a number.
    reference = tl.where(new_peak == MINUS_INFINITY, 0.0, new_peak) if MASKED else new_peak
    weight = tl.exp2(score * scores.outer - reference[:, None])
    shrink = tl.exp2(peak - reference)
    total = total * shrink + tl.sum(weight, 1)
    value = load_rows(v, start, k_len, SHAPE.BLOCK_K, SHAPE.VALUE_DIM, SHAPE.VALUE_WIDTH, MASKED)
    accumulator = tl.dot(weight.to(value.dtype), value, accumulator * shrink[:, None], input_precision=SHAPE.PRECISION)
    return accumulator, total, new_peak


@triton.jit
def normalize(accumulator, total, peak):
    """Return the weighted mean and the natural log of the weights' sum; zeros and −∞ for a row without visible keys."""
    nonempty = total > 0
    divisor = tl.where(nonempty, total, 1.0)
    log_sum = tl.where(nonempty, (peak + tl.log2(divisor)) * LN_2, MINUS_INFINITY)
    return accumulator / divisor[:, None], log_sum


@triton.jit
def tanh(x):
    """Compute tanh from the hardware's one exponential: 1 − 2 / (1 + e²ˣ), which is exact at both ends too."""
    return 1.0 - 2.0 / (1.0 + tl.exp2(x * (2.0 * LOG2_E)))


@triton.jit
def head_of(x, row, head):
    """Return one head of one batch row; the offset has 64 bits, since a long batch has more than 2³¹ elements."""
    offset = row.to(tl.int64) * x.batch_stride + head.to(tl.int64) * x.head_stride
    return Rows(x.pointer + tl.multiple_of(offset, ALIGNMENT), x.batch_stride, x.head_stride, x.token_stride)


@triton.jit
def row_pointers(x, start, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Return pointers to ROWS vectors; the hints let eight elements of a vector be copied at once."""
    rows, columns = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    first = x.pointer + tl.multiple_of(start.to(tl.int64) * x.token_stride, ALIGNMENT)
    return first + tl.multiple_of(rows[:, None] * x.token_stride + columns[None, :], [1, ALIGNMENT]), rows, columns


@triton.jit
def load_rows(x, start, length, ROWS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr, RAGGED: tl.constexpr):
    """Load ROWS vectors of DIM elements from `start`, padded with zeros to WIDTH, and past the end if RAGGED."""
    pointers, rows, columns = row_pointers(x, start, ROWS, WIDTH)
    if RAGGED and WIDTH != DIM:
        return tl.load(pointers, mask=(start + rows < length)[:, None] & (columns < DIM)[None, :], other=0.0)
    elif RAGGED:
        return tl.load(pointers, mask=(start + rows < length)[:, None], other=0.0)
    elif WIDTH != DIM:
        return tl.load(pointers, mask=(columns < DIM)[None, :], other=0.0)
    else:
        return tl.load(pointers)


@triton.jit
def store_rows(x, values, start, length, ROWS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr):
    """Store ROWS vectors, without their padding and without those past the end."""
    pointers, rows, columns = row_pointers(x, start, ROWS, WIDTH)
    inside = (start + rows < length)[:, None] & (columns < DIM)[None, :]
    tl.store(pointers, values.to(x.pointer.dtype.element_ty), mask=inside)
