"""The decoding kernels: a few queries against a long cache of keys, spread over the whole GPU.

When one token is generated there is one query per head, and reading the cache is nearly all the work: one program per
block of queries would leave most of the GPU idle. So the live blocks of keys are split among many programs. Each
computes its own softmax over its part, and a second kernel weights these partial results by their log-sum-exps ("flash
decoding"; the merging rule is arXiv:2205.14135, section 3.1). Query heads that share a key head are rows of one tile:
each key is read once for all of them.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from shared.attention.inputs import AttentionInputs
from shared.attention.triton_blocks import Problem, blocks_to_visit, full_block, partial_block, plan_visits
from shared.attention.triton_forward import MINUS_INFINITY, attend, empty_results, empty_softmax, head_of, normalize
from shared.attention.triton_launch import InputRows, Rows, Shape, multiprocessors, padded, tiles
from shared.attention.triton_mask import load_tokens

MAX_ROWS = 64
MIN_KEYS = 512


class Partial(NamedTuple):
    """The results of all splits in float32: outputs [splits, batch · heads · q_len, value_dim] and log-sum-exps."""

    out: Tensor
    lse: Tensor


class CombineShape(NamedTuple):
    """The constants that `combine_kernel` is compiled for."""

    VALUE_DIM: int
    VALUE_WIDTH: int
    SPLITS: int


def is_decoding(q: Tensor, k: Tensor) -> bool:
    """Return whether the queries of all heads that share keys fit into one tile, and there are many keys to split."""
    rows = q.shape[1] // k.shape[1] * q.shape[2]
    return q.numel() > 0 and rows <= MAX_ROWS and k.shape[2] >= MIN_KEYS


def decode(inputs: AttentionInputs, splits: int | None = None) -> tuple[Tensor, Tensor]:
    """Compute what `forward` does, with the keys of each head split among `splits` programs."""
    q, v = inputs.q, inputs.v
    batch, heads, q_len = q.shape[:3]
    kv_heads, k_len, value_dim = v.shape[1:]
    tile = tiles("decode", q, v)
    if splits is None:
        # Two programs on each multiprocessor, and at least two blocks of keys for each program.
        target = 2 * multiprocessors(q.device) // (batch * kv_heads)
        splits = max(1, min(target, triton.cdiv(k_len, 2 * tile.block_k)))

    rows = batch * heads * q_len
    partial = Partial(
        torch.empty(splits, rows, value_dim, dtype=torch.float32, device=q.device),
        torch.empty(splits, rows, dtype=torch.float32, device=q.device),
    )
    blocks = blocks_to_visit(inputs.mask, q_len, k_len, padded(q_len), tile.block_k, owner="queries")
    decode_kernel[(splits, batch * kv_heads)](
        InputRows.of(inputs),
        partial,
        Problem.of(inputs, blocks),
        SHAPE=Shape.of(inputs, padded(heads // kv_heads * q_len), tile.block_k),
        **tile.options,
    )
    out, lse = empty_results(q, v)
    shape = CombineShape(value_dim, padded(value_dim), triton.next_power_of_2(splits))
    combine_kernel[(rows,)](partial, Rows.of(out), lse, heads, q_len, splits, SHAPE=shape)
    return out, lse


@triton.jit
def decode_kernel(inputs, partial, problem, SHAPE: tl.constexpr):
    """Compute the partial output and log-sum-exp of all queries that share a key head, over one part of the keys."""
    q_len, group = problem.queries.length, problem.group
    kv_heads = problem.heads // group
    split, splits = tl.program_id(0), tl.num_programs(0)
    row, kv_head = tl.program_id(1) // kv_heads, tl.program_id(1) % kv_heads
    keys_and_values = head_of(inputs.k, row, kv_head), head_of(inputs.v, row, kv_head)

    # The queries of all heads that share these keys, one below the other.
    slot = tl.arange(0, SHAPE.BLOCK_Q)
    used = slot < group * q_len
    head, index = kv_head * group + slot // q_len, slot % q_len
    columns, value_columns = tl.arange(0, SHAPE.WIDTH), tl.arange(0, SHAPE.VALUE_WIDTH)
    q = inputs.q
    offset = row.to(tl.int64) * q.batch_stride + head.to(tl.int64) * q.head_stride
    offset += index.to(tl.int64) * q.token_stride
    pointers = q.pointer + offset[:, None] + columns
    query = tl.load(pointers, mask=used[:, None] & (columns < SHAPE.HEAD_DIM)[None, :], other=0.0)
    query_tokens = load_tokens(problem.queries, row, index)
    accumulator, total, peak = empty_softmax(SHAPE.BLOCK_Q, SHAPE.VALUE_WIDTH)

    # This program's part of the live blocks, counted through the full ones and then the partial ones.
    reach = (problem.reach.behind, problem.reach.ahead)
    plan = plan_visits(problem.blocks, row, 0, (0, q_len - 1), reach, problem.keys.length, SHAPE.BLOCK_K)
    part = tl.cdiv(plan.full + plan.partial, splits)
    part_from = split * part
    part_to = tl.minimum(part_from + part, plan.full + plan.partial)
    for number in range(part_from, tl.minimum(part_to, plan.full)):
        place = (row, full_block(problem.blocks, plan, number))
        accumulator, total, peak = attend(
            (accumulator, total, peak), (query, query_tokens), keys_and_values, problem, place, SHAPE, False
        )
    for number in range(tl.maximum(part_from - plan.full, 0), part_to - plan.full):
        place = (row, partial_block(problem.blocks, plan, number))
        accumulator, total, peak = attend(
            (accumulator, total, peak), (query, query_tokens), keys_and_values, problem, place, SHAPE, True
        )

    output, log_sum = normalize(accumulator, total, peak)
    rows = tl.num_programs(1) * group * q_len
    result = split.to(tl.int64) * rows + (row * kv_heads * group + head) * q_len + index
    tl.store(partial.lse + result, log_sum, mask=used)
    pointers = partial.out + result[:, None] * SHAPE.VALUE_DIM + value_columns[None, :]
    tl.store(pointers, output, mask=used[:, None] & (value_columns < SHAPE.VALUE_DIM)[None, :])


@triton.jit
def combine_kernel(partial, out, lse, heads, q_len, splits, SHAPE: tl.constexpr):
    """Combine one query's outputs of all splits, each weighted by its part of the sum of exponentials."""
    result = tl.program_id(0)
    index, head, row = result % q_len, result // q_len % heads, result // q_len // heads
    split, columns = tl.arange(0, SHAPE.SPLITS), tl.arange(0, SHAPE.VALUE_WIDTH)
    offset = split.to(tl.int64) * tl.num_programs(0) + result
    log_sum = tl.load(partial.lse + offset, mask=split < splits, other=MINUS_INFINITY)
    peak = tl.max(log_sum, 0)
    nonempty = peak > MINUS_INFINITY
    reference = tl.where(nonempty, peak, 0.0)
    weight = tl.exp(log_sum - reference)
    total = tl.sum(weight, 0)
    divisor = tl.where(nonempty, total, 1.0)
    tl.store(lse + result, tl.where(nonempty, reference + tl.log(total), MINUS_INFINITY))
    inside = (split < splits)[:, None] & (columns < SHAPE.VALUE_DIM)[None, :]
    outputs = tl.load(partial.out + offset[:, None] * SHAPE.VALUE_DIM + columns[None, :], mask=inside, other=0.0)
    mean = tl.sum(weight[:, None] * outputs, 0) / divisor
    pointers = head_of(out, row, head).pointer + index.to(tl.int64) * out.token_stride + columns
    tl.store(pointers, mean.to(out.pointer.dtype.element_ty), mask=columns < SHAPE.VALUE_DIM)
