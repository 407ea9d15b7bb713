"""The backward kernels: scores are computed again, tile by tile, from q, k and the log-sum-exp that forward kept.

With p the weights, o the output and g its gradient, the chain rule of softmax gives, for every visible pair
(arXiv:2205.14135, appendix B.2; 2307.08691, section 3.1.2)

    dv_j = Σ_i p_ij g_i        ds_ij = p_ij (g_i·v_j − Δ_i)        dq_i = Σ_j ds_ij k_j        dk_j = Σ_i ds_ij q_i

where Δ_i = Σ_j p_ij g_i·v_j = g_i·o_i needs no pass over the keys. One kernel owns blocks of keys and sums over
queries, the other owns blocks of queries and sums over keys. Nothing is added to memory by two programs, so the
same inputs give the same bits.
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
from shared.attention.triton_forward import LOG2_E, NOTHING, first_of, load_rows, store_rows, tanh
from shared.attention.triton_tiles import Scores, padded, precision, reach, strides, tiles


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
    batch, heads, q_len, head_dim = q.shape
    kv_heads, k_len, value_dim = v.shape[1:]
    grad_q, grad_k, grad_v = (torch.empty_like(x) for x in (q, k, v))
    if q.numel() == 0 or k.numel() == 0:
        return grad_q.zero_(), grad_k.zero_(), grad_v.zero_()
    lse = lse.float().contiguous()
    delta = torch.empty_like(lse)
    rows = 32
    delta_kernel[(triton.cdiv(q_len, rows) * batch * heads,)](
        out,
        grad_out,
        lse,
        None if grad_lse is None else grad_lse.contiguous(),
        delta,
        strides(out),
        strides(grad_out),
        q_len,
        heads,
        VALUE_DIM=value_dim,
        VALUE_WIDTH=padded(value_dim),
        ROWS=rows,
    )

    queries, keys = tokens_of(mask, q_len, k_len)
    behind, ahead = reach(mask)
    squash, sharpness = Scores.of(scale, softcap)
    shared = dict(
        CAUSAL=mask.causal,
        HEAD_DIM=head_dim,
        VALUE_DIM=value_dim,
        WIDTH=padded(head_dim),
        VALUE_WIDTH=padded(value_dim),
        PRECISION=precision(q),
    )
    tensors = (q, k, v, grad_out, lse, delta)
    all_strides = tuple(strides(x) for x in (q, k, v, grad_out))

    tile = tiles("keys", q, v)
    keys_kernel[(triton.cdiv(k_len, tile.block_k) * batch * kv_heads,)](
        *tensors,
        grad_k,
        grad_v,
        *all_strides,
        strides(grad_k),
        strides(grad_v),
        queries,
        keys,
        blocks_to_visit(mask, q_len, k_len, tile.block_q, tile.block_k, owner="keys"),
        mask.window,
        # Seen from a key, forwards is backwards.
        ahead,
        behind,
        scale,
        squash,
        sharpness,
        heads,
        heads // kv_heads,
        **shared,
        BLOCK_Q=tile.block_q,
        BLOCK_K=tile.block_k,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    tile = tiles("queries", q, v)
    queries_kernel[(triton.cdiv(q_len, tile.block_q) * batch * heads,)](
        *tensors,
        grad_q,
        *all_strides,
        strides(grad_q),
        queries,
        keys,
        blocks_to_visit(mask, q_len, k_len, tile.block_q, tile.block_k, owner="queries"),
        mask.window,
        behind,
        ahead,
        scale,
        squash,
        sharpness,
        heads,
        heads // kv_heads,
        **shared,
        BLOCK_Q=tile.block_q,
        BLOCK_K=tile.block_k,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return grad_q, grad_k, grad_v


@triton.jit
def delta_kernel(
    out,
    grad_out,
    lse,
    grad_lse,
    delta,
    out_strides,
    grad_strides,
    q_len,
    heads,
    VALUE_DIM: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Δ = rowsum(g ∘ o), less the gradient of the log-sum-exp: d lse / d s_ij is p_ij, so it enters ds beside Δ."""
    q_blocks = tl.cdiv(q_len, ROWS)
    start = tl.program_id(0) % q_blocks * ROWS
    row, head = tl.program_id(0) // q_blocks // heads, tl.program_id(0) // q_blocks % heads
    index = start + tl.arange(0, ROWS)
    inside = index < q_len
    at = (row * heads + head).to(tl.int64) * q_len + index
    o = load_rows(
        first_of(out, out_strides, row, head), start, out_strides[2], q_len, ROWS, VALUE_DIM, VALUE_WIDTH, True
    )
    g = load_rows(
        first_of(grad_out, grad_strides, row, head), start, grad_strides[2], q_len, ROWS, VALUE_DIM, VALUE_WIDTH, True
    )
    result = tl.sum(o.to(tl.float32) * g.to(tl.float32), 1)
    if grad_lse is not None:
        # Where nothing is seen the log-sum-exp is the constant −∞: whatever its gradient, none of it arrives.
        saw = tl.load(lse + at, mask=inside, other=NOTHING) != NOTHING
        result -= tl.where(saw, tl.load(grad_lse + at, mask=inside, other=0.0).to(tl.float32), 0.0)
    tl.store(delta + at, result, mask=inside)


@triton.jit
def keys_kernel(
    q,
    k,
    v,
    grad_out,
    lse,
    delta,
    grad_k,
    grad_v,
    q_strides,
    k_strides,
    v_strides,
    grad_strides,
    grad_k_strides,
    grad_v_strides,
    queries,
    keys,
    blocks,
    window,
    behind,
    ahead,
    scale,
    squash,
    sharpness,
    heads,
    group,
    CAUSAL: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Gradients of one block of keys and values, over all the queries of all the heads that share them."""
    k_blocks = tl.cdiv(keys.length, BLOCK_K)
    # The first keys of a causal mask are seen by most: they start first.
    block_k = tl.program_id(0) % k_blocks
    kv_heads = heads // group
    row, kv_head = tl.program_id(0) // k_blocks // kv_heads, tl.program_id(0) // k_blocks % kv_heads
    start = block_k * BLOCK_K
    key = load_rows(
        first_of(k, k_strides, row, kv_head), start, k_strides[2], keys.length, BLOCK_K, HEAD_DIM, WIDTH, True
    )
    value = load_rows(
        first_of(v, v_strides, row, kv_head), start, v_strides[2], keys.length, BLOCK_K, VALUE_DIM, VALUE_WIDTH, True
    )
    position, segment, span = read_tokens(keys, row, start + tl.arange(0, BLOCK_K))
    sum_k = tl.zeros([BLOCK_K, WIDTH], tl.float32)
    sum_v = tl.zeros([BLOCK_K, VALUE_WIDTH], tl.float32)

    last = tl.minimum(start + BLOCK_K, keys.length) - 1
    full_count, partial_count, live_from, full_from = plan(
        blocks, row, block_k, start, last, behind, ahead, queries.length, BLOCK_Q
    )
    for member in range(group):
        head = kv_head * group + member
        of_q, of_grad = first_of(q, q_strides, row, head), first_of(grad_out, grad_strides, row, head)
        offset = (row * heads + head).to(tl.int64) * queries.length
        for number in range(full_count):
            block = full_block(blocks, number, full_count, live_from, full_from)
            sum_k, sum_v = gather_queries(
                sum_k, sum_v, key, value, position, segment, span, of_q, of_grad, lse + offset, delta + offset,
                q_strides, grad_strides, queries, row, block, window, squash, sharpness,
                CAUSAL, HEAD_DIM, VALUE_DIM, WIDTH, VALUE_WIDTH, BLOCK_Q, PRECISION, False,
            )  # fmt: skip
        for number in range(partial_count):
            block = partial_block(blocks, number, full_count, live_from, full_from)
            sum_k, sum_v = gather_queries(
                sum_k, sum_v, key, value, position, segment, span, of_q, of_grad, lse + offset, delta + offset,
                q_strides, grad_strides, queries, row, block, window, squash, sharpness,
                CAUSAL, HEAD_DIM, VALUE_DIM, WIDTH, VALUE_WIDTH, BLOCK_Q, PRECISION, True,
            )  # fmt: skip

    of_k, of_v = first_of(grad_k, grad_k_strides, row, kv_head), first_of(grad_v, grad_v_strides, row, kv_head)
    store_rows(of_k, sum_k * scale, start, grad_k_strides[2], keys.length, BLOCK_K, HEAD_DIM, WIDTH)
    store_rows(of_v, sum_v, start, grad_v_strides[2], keys.length, BLOCK_K, VALUE_DIM, VALUE_WIDTH)


@triton.jit
def gather_queries(
    sum_k,
    sum_v,
    key,
    value,
    position,
    segment,
    span,
    q,
    grad_out,
    lse,
    delta,
    q_strides,
    grad_strides,
    queries,
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
    BLOCK_Q: tl.constexpr,
    PRECISION: tl.constexpr,
    MASKED: tl.constexpr,
):
    """What one block of queries sends back to a block of keys. The tile lies on its side: keys × queries."""
    start = block * BLOCK_Q
    index = start + tl.arange(0, BLOCK_Q)
    query = load_rows(q, start, q_strides[2], queries.length, BLOCK_Q, HEAD_DIM, WIDTH, MASKED)
    log_sum, mean = read_sums(lse, delta, index, queries.length, MASKED)
    score = tl.dot(key, tl.trans(query), input_precision=PRECISION)
    if squash is not None:
        score = tanh(score * squash)
    weight = tl.exp2(score * sharpness - log_sum[None, :])
    if MASKED:
        position_q, segment_q, span_q = read_tokens(queries, row, index)
        seen = visible(
            position_q[None, :], segment_q[None, :], span_q[None, :],
            position[:, None], segment[:, None], span[:, None], window, CAUSAL,
        )  # fmt: skip
        weight = tl.where(seen, weight, 0.0)
    grad = load_rows(grad_out, start, grad_strides[2], queries.length, BLOCK_Q, VALUE_DIM, VALUE_WIDTH, MASKED)
    sum_v = tl.dot(weight.to(grad.dtype), grad, sum_v, input_precision=PRECISION)
    grad_score = weight * (tl.dot(value, tl.trans(grad), input_precision=PRECISION) - mean[None, :])
    if squash is not None:
        grad_score = grad_score * (1.0 - score * score)
    sum_k = tl.dot(grad_score.to(query.dtype), query, sum_k, input_precision=PRECISION)
    return sum_k, sum_v


@triton.jit
def queries_kernel(
    q,
    k,
    v,
    grad_out,
    lse,
    delta,
    grad_q,
    q_strides,
    k_strides,
    v_strides,
    grad_strides,
    grad_q_strides,
    queries,
    keys,
    blocks,
    window,
    behind,
    ahead,
    scale,
    squash,
    sharpness,
    heads,
    group,
    CAUSAL: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Gradient of one block of queries, over all the keys that they see."""
    q_blocks = tl.cdiv(queries.length, BLOCK_Q)
    block_q = q_blocks - 1 - tl.program_id(0) % q_blocks
    row, head = tl.program_id(0) // q_blocks // heads, tl.program_id(0) // q_blocks % heads
    k = first_of(k, k_strides, row, head // group)
    v = first_of(v, v_strides, row, head // group)
    offset = (row * heads + head).to(tl.int64) * queries.length
    start = block_q * BLOCK_Q
    index = start + tl.arange(0, BLOCK_Q)
    query = load_rows(
        first_of(q, q_strides, row, head), start, q_strides[2], queries.length, BLOCK_Q, HEAD_DIM, WIDTH, True
    )
    grad = load_rows(
        first_of(grad_out, grad_strides, row, head),
        start,
        grad_strides[2],
        queries.length,
        BLOCK_Q,
        VALUE_DIM,
        VALUE_WIDTH,
        True,
    )
    log_sum, mean = read_sums(lse + offset, delta + offset, index, queries.length, True)
    position, segment, span = read_tokens(queries, row, index)
    sum_q = tl.zeros([BLOCK_Q, WIDTH], tl.float32)

    last = tl.minimum(start + BLOCK_Q, queries.length) - 1
    full_count, partial_count, live_from, full_from = plan(
        blocks, row, block_q, start, last, behind, ahead, keys.length, BLOCK_K
    )
    for number in range(full_count):
        block = full_block(blocks, number, full_count, live_from, full_from)
        sum_q = gather_keys(
            sum_q, query, grad, log_sum, mean, position, segment, span, k, v, k_strides, v_strides, keys, row, block,
            window, squash, sharpness, CAUSAL, HEAD_DIM, VALUE_DIM, WIDTH, VALUE_WIDTH, BLOCK_K, PRECISION, False,
        )  # fmt: skip
    for number in range(partial_count):
        block = partial_block(blocks, number, full_count, live_from, full_from)
        sum_q = gather_keys(
            sum_q, query, grad, log_sum, mean, position, segment, span, k, v, k_strides, v_strides, keys, row, block,
            window, squash, sharpness, CAUSAL, HEAD_DIM, VALUE_DIM, WIDTH, VALUE_WIDTH, BLOCK_K, PRECISION, True,
        )  # fmt: skip

    of_q = first_of(grad_q, grad_q_strides, row, head)
    store_rows(of_q, sum_q * scale, start, grad_q_strides[2], queries.length, BLOCK_Q, HEAD_DIM, WIDTH)


@triton.jit
def gather_keys(
    sum_q,
    query,
    grad,
    log_sum,
    mean,
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
    """What one block of keys sends back to a block of queries."""
    start = block * BLOCK_K
    key = load_rows(k, start, k_strides[2], keys.length, BLOCK_K, HEAD_DIM, WIDTH, MASKED)
    score = tl.dot(query, tl.trans(key), input_precision=PRECISION)
    if squash is not None:
        score = tanh(score * squash)
    weight = tl.exp2(score * sharpness - log_sum[:, None])
    if MASKED:
        position_k, segment_k, span_k = read_tokens(keys, row, start + tl.arange(0, BLOCK_K))
        seen = visible(
            position[:, None], segment[:, None], span[:, None],
            position_k[None, :], segment_k[None, :], span_k[None, :], window, CAUSAL,
        )  # fmt: skip
        weight = tl.where(seen, weight, 0.0)
    value = load_rows(v, start, v_strides[2], keys.length, BLOCK_K, VALUE_DIM, VALUE_WIDTH, MASKED)
    grad_score = weight * (tl.dot(grad, tl.trans(value), input_precision=PRECISION) - mean[:, None])
    if squash is not None:
        grad_score = grad_score * (1.0 - score * score)
    return tl.dot(grad_score.to(key.dtype), key, sum_q, input_precision=PRECISION)


@triton.jit
def read_sums(lse, delta, index, length, RAGGED: tl.constexpr):
    """The log-sum-exp in base 2, and Δ. A row that sees nothing has no weight to restore, whatever stands there."""
    if RAGGED:
        log_sum = tl.load(lse + index, mask=index < length, other=0.0)
        mean = tl.load(delta + index, mask=index < length, other=0.0)
    else:
        log_sum = tl.load(lse + index)
        mean = tl.load(delta + index)
    return log_sum * LOG2_E, mean
