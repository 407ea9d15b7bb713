"""The backward kernels: scores are computed again, tile by tile, from q, k and the log-sum-exp that forward kept.

With p the weights, o the output and g its gradient, the chain rule of softmax gives, for every visible pair
(arXiv:2205.14135, appendix B.2; 2307.08691, section 3.1.2)

    dv_j = Σ_i p_ij g_i        ds_ij = p_ij (g_i·v_j − Δ_i)        dq_i = Σ_j ds_ij k_j        dk_j = Σ_i ds_ij q_i

where Δ_i = Σ_j p_ij g_i·v_j = g_i·o_i needs no pass over the keys. One kernel owns blocks of keys and sums over
queries, the other owns blocks of queries and sums over keys. Nothing is added to memory by two programs, so the
same inputs give the same bits.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from shared.attention.mask import Mask
from shared.attention.triton_blocks import blocks_to_visit, full_block, partial_block, plan
from shared.attention.triton_forward import LOG2_E, NOTHING, head_of, load_rows, store_rows, tanh
from shared.attention.triton_mask import across, down, read_tokens, tokens_of, visible
from shared.attention.triton_tiles import Reach, Rows, Scores, Shape, empty_rows, padded, tiles

DELTA_ROWS = 32


class Sums(NamedTuple):
    """One number per query, [batch, heads, q_len]: the log-sum-exp of its scores, and Δ, the mean of its g·v."""

    lse: Tensor
    delta: Tensor


def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    grad_out: Tensor,
    grad_lse: Tensor | None,
    mask: Mask,
    *,
    scale: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, from the output and log-sum-exp over all keys, of which k and v may be one block.

    q [batch, heads, q_len, head_dim], k [batch, kv_heads, k_len, head_dim], v [batch, kv_heads, k_len, value_dim];
    out and grad_out [batch, heads, q_len, value_dim]; lse and grad_lse [batch, heads, q_len].
    """
    batch, heads, q_len = q.shape[:3]
    kv_heads, k_len = k.shape[1:3]
    grad_q, grad_k, grad_v = empty_gradients(q, k, v)
    if q.numel() == 0 or k.numel() == 0:
        return grad_q.zero_(), grad_k.zero_(), grad_v.zero_()
    lse = lse.float().contiguous()
    sums = Sums(lse, mean_gradient(out, lse, grad_out, grad_lse))

    q_rows, k_rows, v_rows, grad_rows = (Rows.of(x) for x in (q, k, v, grad_out))
    queries, keys = tokens_of(mask, q_len, k_len)
    reach, scores = Reach.of(mask), Scores.of(scale, softcap)
    heads_of = heads, heads // kv_heads

    tile = tiles("keys", q, v)
    blocks = blocks_to_visit(mask, q_len, k_len, tile.block_q, tile.block_k, owner="keys")
    shape = Shape.of(q, v, mask, tile.block_q, tile.block_k)
    keys_kernel[(triton.cdiv(k_len, tile.block_k) * batch * kv_heads,)](
        q_rows, k_rows, v_rows, grad_rows, sums, Rows.of(grad_k), Rows.of(grad_v),
        queries, keys, blocks, reach, scores, scale, *heads_of, SHAPE=shape, **tile.options,
    )  # fmt: skip

    tile = tiles("queries", q, v)
    blocks = blocks_to_visit(mask, q_len, k_len, tile.block_q, tile.block_k, owner="queries")
    shape = Shape.of(q, v, mask, tile.block_q, tile.block_k)
    queries_kernel[(triton.cdiv(q_len, tile.block_q) * batch * heads,)](
        q_rows, k_rows, v_rows, grad_rows, sums, Rows.of(grad_q),
        queries, keys, blocks, reach, scores, scale, *heads_of, SHAPE=shape, **tile.options,
    )  # fmt: skip
    return grad_q, grad_k, grad_v


def empty_gradients(*inputs: Tensor) -> tuple[Tensor, ...]:
    """Room for the gradients of q, k and v."""
    return tuple(empty_rows(*x.shape, like=x) for x in inputs)


def mean_gradient(out: Tensor, lse: Tensor, grad_out: Tensor, grad_lse: Tensor | None) -> Tensor:
    """Δ [batch, heads, q_len] in float32."""
    batch, heads, q_len, value_dim = out.shape
    delta = torch.empty_like(lse)
    grad_lse = None if grad_lse is None else grad_lse.contiguous()
    delta_kernel[(triton.cdiv(q_len, DELTA_ROWS) * batch * heads,)](
        Rows.of(out), Rows.of(grad_out), lse, grad_lse, delta, q_len, heads,
        VALUE_DIM=value_dim, VALUE_WIDTH=padded(value_dim), ROWS=DELTA_ROWS,
    )  # fmt: skip
    return delta


@triton.jit
def delta_kernel(
    out, grad_out, lse, grad_lse, delta, q_len, heads,
    VALUE_DIM: tl.constexpr, VALUE_WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Δ = rowsum(g ∘ o), less the gradient of the log-sum-exp: d lse / d s_ij is p_ij, so it enters ds beside Δ."""
    q_blocks = tl.cdiv(q_len, ROWS)
    start = tl.program_id(0) % q_blocks * ROWS
    row, head = tl.program_id(0) // q_blocks // heads, tl.program_id(0) // q_blocks % heads
    o = load_rows(head_of(out, row, head), start, q_len, ROWS, VALUE_DIM, VALUE_WIDTH, True)
    g = load_rows(head_of(grad_out, row, head), start, q_len, ROWS, VALUE_DIM, VALUE_WIDTH, True)
    mean = tl.sum(o.to(tl.float32) * g.to(tl.float32), 1)

    index = start + tl.arange(0, ROWS)
    at = (row * heads + head).to(tl.int64) * q_len + index
    if grad_lse is not None:
        # Where nothing is seen the log-sum-exp is the constant −∞: whatever its gradient, none of it arrives.
        saw = tl.load(lse + at, mask=index < q_len, other=NOTHING) != NOTHING
        mean -= tl.where(saw, tl.load(grad_lse + at, mask=index < q_len, other=0.0).to(tl.float32), 0.0)
    tl.store(delta + at, mean, mask=index < q_len)


@triton.jit
def keys_kernel(
    q, k, v, grad_out, sums, grad_k, grad_v, queries, keys, blocks, reach, scores, scale, heads, group,
    SHAPE: tl.constexpr,
):  # fmt: skip
    """Gradients of one block of keys and values, over all the queries of all the heads that share them."""
    # The first keys of a causal mask are seen by most: they start first.
    k_blocks = tl.cdiv(keys.length, SHAPE.BLOCK_K)
    block_k = tl.program_id(0) % k_blocks
    kv_heads = heads // group
    row, kv_head = tl.program_id(0) // k_blocks // kv_heads, tl.program_id(0) // k_blocks % kv_heads

    start = block_k * SHAPE.BLOCK_K
    k, v = head_of(k, row, kv_head), head_of(v, row, kv_head)
    key = load_rows(k, start, keys.length, SHAPE.BLOCK_K, SHAPE.HEAD_DIM, SHAPE.WIDTH, True)
    value = load_rows(v, start, keys.length, SHAPE.BLOCK_K, SHAPE.VALUE_DIM, SHAPE.VALUE_WIDTH, True)
    own = read_tokens(keys, row, start + tl.arange(0, SHAPE.BLOCK_K))
    sum_k = zeros(SHAPE.BLOCK_K, SHAPE.WIDTH)
    sum_v = zeros(SHAPE.BLOCK_K, SHAPE.VALUE_WIDTH)

    # Seen from a key, the queries that look back at it lie ahead.
    last = tl.minimum(start + SHAPE.BLOCK_K, keys.length) - 1
    walk = plan(blocks, row, block_k, start, last, reach.ahead, reach.behind, queries.length, SHAPE.BLOCK_Q)
    # Heads that share keys follow one another in the same loop: the next head's first block is fetched in time.
    for step in range(group * walk.full):
        block = full_block(blocks, walk, step % walk.full)
        head = kv_head * group + step // walk.full
        sum_k, sum_v = gather_queries(
            sum_k, sum_v, key, value, own, head_of(q, row, head), head_of(grad_out, row, head),
            sums_of(sums, row * heads + head, queries.length), queries, row, block, reach.window, scores, SHAPE, False,
        )  # fmt: skip
    for step in range(group * walk.partial):
        block = partial_block(blocks, walk, step % walk.partial)
        head = kv_head * group + step // walk.partial
        sum_k, sum_v = gather_queries(
            sum_k, sum_v, key, value, own, head_of(q, row, head), head_of(grad_out, row, head),
            sums_of(sums, row * heads + head, queries.length), queries, row, block, reach.window, scores, SHAPE, True,
        )  # fmt: skip

    grad_k, grad_v = head_of(grad_k, row, kv_head), head_of(grad_v, row, kv_head)
    store_rows(grad_k, sum_k * scale, start, keys.length, SHAPE.BLOCK_K, SHAPE.HEAD_DIM, SHAPE.WIDTH)
    store_rows(grad_v, sum_v, start, keys.length, SHAPE.BLOCK_K, SHAPE.VALUE_DIM, SHAPE.VALUE_WIDTH)


@triton.jit
def gather_queries(
    sum_k, sum_v, key, value, own, q, grad_out, sums, queries, row, block, window, scores,
    SHAPE: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """What one block of queries sends back to a block of keys. The tile lies on its side: keys × queries."""
    start = block * SHAPE.BLOCK_Q
    index = start + tl.arange(0, SHAPE.BLOCK_Q)
    query = load_rows(q, start, queries.length, SHAPE.BLOCK_Q, SHAPE.HEAD_DIM, SHAPE.WIDTH, MASKED)
    log_sum, mean = read_sums(sums, index, queries.length, MASKED)
    score = tl.dot(key, tl.trans(query), input_precision=SHAPE.PRECISION)
    if scores.squash is not None:
        score = tanh(score * scores.squash)
    weight = tl.exp2(score * scores.sharpness - log_sum[None, :])
    if MASKED:
        theirs = read_tokens(queries, row, index)
        weight = tl.where(visible(across(theirs), down(own), window, SHAPE.CAUSAL), weight, 0.0)
    grad = load_rows(grad_out, start, queries.length, SHAPE.BLOCK_Q, SHAPE.VALUE_DIM, SHAPE.VALUE_WIDTH, MASKED)
    sum_v = tl.dot(weight.to(grad.dtype), grad, sum_v, input_precision=SHAPE.PRECISION)
    grad_score = weight * (tl.dot(value, tl.trans(grad), input_precision=SHAPE.PRECISION) - mean[None, :])
    if scores.squash is not None:
        grad_score = grad_score * (1.0 - score * score)
    sum_k = tl.dot(grad_score.to(query.dtype), query, sum_k, input_precision=SHAPE.PRECISION)
    return sum_k, sum_v


@triton.jit
def queries_kernel(
    q, k, v, grad_out, sums, grad_q, queries, keys, blocks, reach, scores, scale, heads, group, SHAPE: tl.constexpr
):  # fmt: skip
    """Gradient of one block of queries, over all the keys that they see."""
    q_blocks = tl.cdiv(queries.length, SHAPE.BLOCK_Q)
    block_q = q_blocks - 1 - tl.program_id(0) % q_blocks
    row, head = tl.program_id(0) // q_blocks // heads, tl.program_id(0) // q_blocks % heads
    k, v = head_of(k, row, head // group), head_of(v, row, head // group)

    start = block_q * SHAPE.BLOCK_Q
    index = start + tl.arange(0, SHAPE.BLOCK_Q)
    q, grad_out = head_of(q, row, head), head_of(grad_out, row, head)
    query = load_rows(q, start, queries.length, SHAPE.BLOCK_Q, SHAPE.HEAD_DIM, SHAPE.WIDTH, True)
    grad = load_rows(grad_out, start, queries.length, SHAPE.BLOCK_Q, SHAPE.VALUE_DIM, SHAPE.VALUE_WIDTH, True)
    log_sum, mean = read_sums(sums_of(sums, row * heads + head, queries.length), index, queries.length, True)
    own = read_tokens(queries, row, index)
    sum_q = zeros(SHAPE.BLOCK_Q, SHAPE.WIDTH)

    last = tl.minimum(start + SHAPE.BLOCK_Q, queries.length) - 1
    walk = plan(blocks, row, block_q, start, last, reach.behind, reach.ahead, keys.length, SHAPE.BLOCK_K)
    for number in range(walk.full):
        block = full_block(blocks, walk, number)
        sum_q = gather_keys(
            sum_q, query, grad, log_sum, mean, own, k, v, keys, row, block, reach.window, scores, SHAPE, False
        )
    for number in range(walk.partial):
        block = partial_block(blocks, walk, number)
        sum_q = gather_keys(
            sum_q, query, grad, log_sum, mean, own, k, v, keys, row, block, reach.window, scores, SHAPE, True
        )

    grad_q = head_of(grad_q, row, head)
    store_rows(grad_q, sum_q * scale, start, queries.length, SHAPE.BLOCK_Q, SHAPE.HEAD_DIM, SHAPE.WIDTH)


@triton.jit
def gather_keys(
    sum_q, query, grad, log_sum, mean, own, k, v, keys, row, block, window, scores,
    SHAPE: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """What one block of keys sends back to a block of queries."""
    start = block * SHAPE.BLOCK_K
    key = load_rows(k, start, keys.length, SHAPE.BLOCK_K, SHAPE.HEAD_DIM, SHAPE.WIDTH, MASKED)
    score = tl.dot(query, tl.trans(key), input_precision=SHAPE.PRECISION)
    if scores.squash is not None:
        score = tanh(score * scores.squash)
    weight = tl.exp2(score * scores.sharpness - log_sum[:, None])
    if MASKED:
        theirs = read_tokens(keys, row, start + tl.arange(0, SHAPE.BLOCK_K))
        weight = tl.where(visible(down(own), across(theirs), window, SHAPE.CAUSAL), weight, 0.0)
    value = load_rows(v, start, keys.length, SHAPE.BLOCK_K, SHAPE.VALUE_DIM, SHAPE.VALUE_WIDTH, MASKED)
    grad_score = weight * (tl.dot(grad, tl.trans(value), input_precision=SHAPE.PRECISION) - mean[:, None])
    if scores.squash is not None:
        grad_score = grad_score * (1.0 - score * score)
    return tl.dot(grad_score.to(key.dtype), key, sum_q, input_precision=SHAPE.PRECISION)


@triton.jit
def zeros(ROWS: tl.constexpr, WIDTH: tl.constexpr):
    return tl.zeros([ROWS, WIDTH], tl.float32)


@triton.jit
def sums_of(sums, head, length):
    """Those of one head of one row of the batch."""
    return Sums(sums.lse + head.to(tl.int64) * length, sums.delta + head.to(tl.int64) * length)


@triton.jit
def read_sums(sums, index, length, RAGGED: tl.constexpr):
    """A row's log-sum-exp in base 2, and its Δ. Where a row sees nothing they don't matter: no weight is restored."""
    if RAGGED:
        log_sum = tl.load(sums.lse + index, mask=index < length, other=0.0)
        mean = tl.load(sums.delta + index, mask=index < length, other=0.0)
    else:
        log_sum = tl.load(sums.lse + index)
        mean = tl.load(sums.delta + index)
    return log_sum * LOG2_E, mean
