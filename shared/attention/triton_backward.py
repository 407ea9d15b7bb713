"""The backward kernels: scores are recomputed, tile by tile, from q, k and the log-sum-exp of the forward pass.

With p the weights, o the output and g its gradient, the chain rule of softmax gives, for every visible pair
(arXiv:2205.14135, appendix B.2; 2307.08691, section 3.1.2)

    dv_j = Σ_i p_ij g_i        ds_ij = p_ij (g_i·v_j − Δ_i)        dq_i = Σ_j ds_ij k_j        dk_j = Σ_i ds_ij q_i

where Δ_i = Σ_j p_ij g_i·v_j = g_i·o_i needs no pass over the keys. One kernel owns blocks of keys and sums over
queries, the other owns blocks of queries and sums over keys. No two programs add to the same memory, so the same
inputs give the same bits.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from shared.attention.inputs import AttentionInputs, OutputGradient
from shared.attention.triton_blocks import Problem, blocks_to_visit, full_block, partial_block, plan_visits
from shared.attention.triton_forward import LOG2_E, MINUS_INFINITY, head_of, load_rows, store_rows, tanh
from shared.attention.triton_launch import InputRows, Rows, Shape, Tiles, empty_rows, padded, tiles
from shared.attention.triton_mask import as_columns, as_rows, load_tokens, visible

DELTA_ROWS = 32


class Sums(NamedTuple):
    """Two numbers per query, [batch, heads, q_len]: the log-sum-exp of its scores, and Δ, the weighted mean of g·v."""

    lse: Tensor
    delta: Tensor


class DeltaShape(NamedTuple):
    """The constants that `delta_kernel` is compiled for."""

    VALUE_DIM: int
    VALUE_WIDTH: int
    ROWS: int


def backward(inputs: AttentionInputs, output: OutputGradient) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v, where `output` covers all keys, of which k and v may be one block."""
    q, k, v, mask = inputs.q, inputs.k, inputs.v, inputs.mask
    batch, heads, q_len = q.shape[:3]
    kv_heads, k_len = k.shape[1:3]
    grad_q, grad_k, grad_v = empty_gradients(q, k, v)
    if q.numel() == 0 or k.numel() == 0:
        return grad_q.zero_(), grad_k.zero_(), grad_v.zero_()
    sums = _sums(output)
    rows, grad_rows = InputRows.of(inputs), Rows.of(output.grad_out)

    def launch_arguments(tile: Tiles, owner: str) -> tuple[Problem, dict]:
        blocks = blocks_to_visit(mask, q_len, k_len, tile.block_q, tile.block_k, owner=owner)
        return Problem.of(inputs, blocks), {"SHAPE": Shape.of(inputs, tile.block_q, tile.block_k), **tile.options}

    tile = tiles("keys", q, v)
    problem, options = launch_arguments(tile, "keys")
    keys_kernel[(triton.cdiv(k_len, tile.block_k) * batch * kv_heads,)](
        rows, grad_rows, sums, Rows.of(grad_k), Rows.of(grad_v), problem, **options
    )
    tile = tiles("queries", q, v)
    problem, options = launch_arguments(tile, "queries")
    queries_kernel[(triton.cdiv(q_len, tile.block_q) * batch * heads,)](
        rows, grad_rows, sums, Rows.of(grad_q), problem, **options
    )
    return grad_q, grad_k, grad_v


def empty_gradients(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Allocate the gradients of q, k and v."""

    def empty(x: Tensor) -> Tensor:
        batch, heads, length, dim = x.shape
        return empty_rows(batch, heads, length, dim, like=x)

    return empty(q), empty(k), empty(v)


def _sums(output: OutputGradient) -> Sums:
    """Compute Δ [batch, heads, q_len] in float32 and return it with the log-sum-exp."""
    batch, heads, q_len, value_dim = output.out.shape
    lse = output.lse.float().contiguous()
    sums = Sums(lse, torch.empty_like(lse))
    grad_lse = None if output.grad_lse is None else output.grad_lse.contiguous()
    shape = DeltaShape(value_dim, padded(value_dim), DELTA_ROWS)
    delta_kernel[(triton.cdiv(q_len, DELTA_ROWS) * batch * heads,)](
        Rows.of(output.out), Rows.of(output.grad_out), sums, grad_lse, q_len, heads, SHAPE=shape
    )
    return sums


@triton.jit
def delta_kernel(out, grad_out, sums, grad_lse, q_len, heads, SHAPE: tl.constexpr):
    """Δ = rowsum(g ∘ o), minus the gradient of the log-sum-exp: d lse / d s_ij is p_ij, so it enters ds beside Δ."""
    q_blocks = tl.cdiv(q_len, SHAPE.ROWS)
    start = tl.program_id(0) % q_blocks * SHAPE.ROWS
    row, head = tl.program_id(0) // q_blocks // heads, tl.program_id(0) // q_blocks % heads
    o = load_rows(head_of(out, row, head), start, q_len, SHAPE.ROWS, SHAPE.VALUE_DIM, SHAPE.VALUE_WIDTH, True)
    g = load_rows(head_of(grad_out, row, head), start, q_len, SHAPE.ROWS, SHAPE.VALUE_DIM, SHAPE.VALUE_WIDTH, True)
    delta = tl.sum(o.to(tl.float32) * g.to(tl.float32), 1)

    index = start + tl.arange(0, SHAPE.ROWS)
    offset = (row * heads + head).to(tl.int64) * q_len + index
    if grad_lse is not None:
        # Without a visible key the log-sum-exp is the constant −∞, which passes no gradient on.
        nonempty = tl.load(sums.lse + offset, mask=index < q_len, other=MINUS_INFINITY) != MINUS_INFINITY
        gradient = tl.load(grad_lse + offset, mask=index < q_len, other=0.0).to(tl.float32)
        delta -= tl.where(nonempty, gradient, 0.0)
    tl.store(sums.delta + offset, delta, mask=index < q_len)


@triton.jit
def keys_kernel(inputs, grad_out, sums, grad_k, grad_v, problem, SHAPE: tl.constexpr):
    """Compute the gradients of one block of keys and values, over all queries of all heads that share them."""
    # The first keys of a causal mask are visible to most queries: they start first.
    q_len, k_len, group = problem.queries.length, problem.keys.length, problem.group
    k_blocks = tl.cdiv(k_len, SHAPE.BLOCK_K)
    block_k = tl.program_id(0) % k_blocks
    kv_heads = problem.heads // group
    row, kv_head = tl.program_id(0) // k_blocks // kv_heads, tl.program_id(0) // k_blocks % kv_heads

    start = block_k * SHAPE.BLOCK_K
    k, v = head_of(inputs.k, row, kv_head), head_of(inputs.v, row, kv_head)
    key = load_rows(k, start, k_len, SHAPE.BLOCK_K, SHAPE.HEAD_DIM, SHAPE.WIDTH, True)
    value = load_rows(v, start, k_len, SHAPE.BLOCK_K, SHAPE.VALUE_DIM, SHAPE.VALUE_WIDTH, True)
    key_tokens = load_tokens(problem.keys, row, start + tl.arange(0, SHAPE.BLOCK_K))
    sum_k = zeros(SHAPE.BLOCK_K, SHAPE.WIDTH)
    sum_v = zeros(SHAPE.BLOCK_K, SHAPE.VALUE_WIDTH)

    # The queries that attend back to a key are ahead of it, so the reach is mirrored.
    last = tl.minimum(start + SHAPE.BLOCK_K, k_len) - 1
    reach = (problem.reach.ahead, problem.reach.behind)
    plan = plan_visits(problem.blocks, row, block_k, (start, last), reach, q_len, SHAPE.BLOCK_Q)
    # Heads that share keys follow one another in one loop, so that the next head's first block is loaded in time.
    for step in range(group * plan.full):
        place = (row, full_block(problem.blocks, plan, step % plan.full))
        head = kv_head * group + step // plan.full
        queries = (
            head_of(inputs.q, row, head),
            head_of(grad_out, row, head),
            sums_of(sums, row * problem.heads + head, q_len),
        )
        sum_k, sum_v = add_queries((sum_k, sum_v), (key, value, key_tokens), queries, problem, place, SHAPE, False)
    for step in range(group * plan.partial):
        place = (row, partial_block(problem.blocks, plan, step % plan.partial))
        head = kv_head * group + step // plan.partial
        queries = (
            head_of(inputs.q, row, head),
            head_of(grad_out, row, head),
            sums_of(sums, row * problem.heads + head, q_len),
        )
        sum_k, sum_v = add_queries((sum_k, sum_v), (key, value, key_tokens), queries, problem, place, SHAPE, True)

    grad_k, grad_v = head_of(grad_k, row, kv_head), head_of(grad_v, row, kv_head)
    store_rows(grad_k, sum_k * problem.scores.scale, start, k_len, SHAPE.BLOCK_K, SHAPE.HEAD_DIM, SHAPE.WIDTH)
    store_rows(grad_v, sum_v, start, k_len, SHAPE.BLOCK_K, SHAPE.VALUE_DIM, SHAPE.VALUE_WIDTH)


@triton.jit
def add_queries(state, keys, queries, problem, place, SHAPE: tl.constexpr, MASKED: tl.constexpr):
    """Add one block of queries to the gradients of a block of keys. The tile is transposed: keys × queries.

    `state` is (sum of dk, sum of dv), `keys` are (keys, values, tokens), `queries` are (q, gradient of out, sums),
    `place` is (batch row, block of queries).
    """
    sum_k, sum_v = state
    key, value, key_tokens = keys
    q, grad_out, sums = queries
    row, block = place
    start, q_len, scores = block * SHAPE.BLOCK_Q, problem.queries.length, problem.scores
    index = start + tl.arange(0, SHAPE.BLOCK_Q)
    query = load_rows(q, start, q_len, SHAPE.BLOCK_Q, SHAPE.HEAD_DIM, SHAPE.WIDTH, MASKED)
    log_sum, delta = load_sums(sums, index, q_len, MASKED)
    score = tl.dot(key, tl.trans(query), input_precision=SHAPE.PRECISION)
    if scores.inner is not None:
        score = tanh(score * scores.inner)
    weight = tl.exp2(score * scores.outer - log_sum[None, :])
    if MASKED:
        query_tokens = load_tokens(problem.queries, row, index)
        pairs = visible(as_columns(query_tokens), as_rows(key_tokens), problem.reach.window, SHAPE.CAUSAL)
        weight = tl.where(pairs, weight, 0.0)
    grad = load_rows(grad_out, start, q_len, SHAPE.BLOCK_Q, SHAPE.VALUE_DIM, SHAPE.VALUE_WIDTH, MASKED)
    sum_v = tl.dot(weight.to(grad.dtype), grad, sum_v, input_precision=SHAPE.PRECISION)
    grad_score = weight * (tl.dot(value, tl.trans(grad), input_precision=SHAPE.PRECISION) - delta[None, :])
    if scores.inner is not None:
        grad_score = grad_score * (1.0 - score * score)
    sum_k = tl.dot(grad_score.to(query.dtype), query, sum_k, input_precision=SHAPE.PRECISION)
    return sum_k, sum_v


@triton.jit
def queries_kernel(inputs, grad_out, sums, grad_q, problem, SHAPE: tl.constexpr):
    """Compute the gradient of one block of queries, over all keys that are visible to them."""
    q_len, heads = problem.queries.length, problem.heads
    q_blocks = tl.cdiv(q_len, SHAPE.BLOCK_Q)
    block_q = q_blocks - 1 - tl.program_id(0) % q_blocks
    row, head = tl.program_id(0) // q_blocks // heads, tl.program_id(0) // q_blocks % heads
    kv_head = head // problem.group
    keys_and_values = head_of(inputs.k, row, kv_head), head_of(inputs.v, row, kv_head)

    start = block_q * SHAPE.BLOCK_Q
    index = start + tl.arange(0, SHAPE.BLOCK_Q)
    q, grad_out = head_of(inputs.q, row, head), head_of(grad_out, row, head)
    query = load_rows(q, start, q_len, SHAPE.BLOCK_Q, SHAPE.HEAD_DIM, SHAPE.WIDTH, True)
    grad = load_rows(grad_out, start, q_len, SHAPE.BLOCK_Q, SHAPE.VALUE_DIM, SHAPE.VALUE_WIDTH, True)
    log_sum, delta = load_sums(sums_of(sums, row * heads + head, q_len), index, q_len, True)
    queries = (query, grad, log_sum, delta, load_tokens(problem.queries, row, index))
    sum_q = zeros(SHAPE.BLOCK_Q, SHAPE.WIDTH)

    last = tl.minimum(start + SHAPE.BLOCK_Q, q_len) - 1
    reach = (problem.reach.behind, problem.reach.ahead)
    plan = plan_visits(problem.blocks, row, block_q, (start, last), reach, problem.keys.length, SHAPE.BLOCK_K)
    for number in range(plan.full):
        place = (row, full_block(problem.blocks, plan, number))
        sum_q = add_keys(sum_q, queries, keys_and_values, problem, place, SHAPE, False)
    for number in range(plan.partial):
        place = (row, partial_block(problem.blocks, plan, number))
        sum_q = add_keys(sum_q, queries, keys_and_values, problem, place, SHAPE, True)

    grad_q = head_of(grad_q, row, head)
    store_rows(grad_q, sum_q * problem.scores.scale, start, q_len, SHAPE.BLOCK_Q, SHAPE.HEAD_DIM, SHAPE.WIDTH)


@triton.jit
def add_keys(sum_q, queries, keys_and_values, problem, place, SHAPE: tl.constexpr, MASKED: tl.constexpr):
    """Add one block of keys to the gradient of a block of queries.

    `queries` are (q, gradient of out, log-sum-exp, Δ, tokens), `place` is (batch row, block of keys).
    """
    query, grad, log_sum, delta, query_tokens = queries
    k, v = keys_and_values
    row, block = place
    start, k_len, scores = block * SHAPE.BLOCK_K, problem.keys.length, problem.scores
    key = load_rows(k, start, k_len, SHAPE.BLOCK_K, SHAPE.HEAD_DIM, SHAPE.WIDTH, MASKED)
    score = tl.dot(query, tl.trans(key), input_precision=SHAPE.PRECISION)
    if scores.inner is not None:
        score = tanh(score * scores.inner)
    weight = tl.exp2(score * scores.outer - log_sum[:, None])
    if MASKED:
        key_tokens = load_tokens(problem.keys, row, start + tl.arange(0, SHAPE.BLOCK_K))
        pairs = visible(as_rows(query_tokens), as_columns(key_tokens), problem.reach.window, SHAPE.CAUSAL)
        weight = tl.where(pairs, weight, 0.0)
    value = load_rows(v, start, k_len, SHAPE.BLOCK_K, SHAPE.VALUE_DIM, SHAPE.VALUE_WIDTH, MASKED)
    grad_score = weight * (tl.dot(grad, tl.trans(value), input_precision=SHAPE.PRECISION) - delta[:, None])
    if scores.inner is not None:
        grad_score = grad_score * (1.0 - score * score)
    return tl.dot(grad_score.to(key.dtype), key, sum_q, input_precision=SHAPE.PRECISION)


@triton.jit
def zeros(ROWS: tl.constexpr, WIDTH: tl.constexpr):
    return tl.zeros([ROWS, WIDTH], tl.float32)


@triton.jit
def sums_of(sums, head, length):
    """Return the sums of one head of one batch row."""
    return Sums(sums.lse + head.to(tl.int64) * length, sums.delta + head.to(tl.int64) * length)


@triton.jit
def load_sums(sums, index, length, RAGGED: tl.constexpr):
    """Load log-sum-exps in base 2, and Δ. For a row without visible keys they do not matter: all its weights are 0."""
    if RAGGED:
        log_sum = tl.load(sums.lse + index, mask=index < length, other=0.0)
        delta = tl.load(sums.delta + index, mask=index < length, other=0.0)
    else:
        log_sum = tl.load(sums.lse + index)
        delta = tl.load(sums.delta + index)
    return log_sum * LOG2_E, delta
