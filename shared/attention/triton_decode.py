"""The decoding kernels: a few queries against a long cache of keys, spread over the whole chip.

When one token is generated there is one row of queries, and reading the cache is all the work: a program per block
of queries would leave most of the chip idle. So the live blocks of keys are split among many programs; each makes
its own softmax over its share, and a second kernel weighs these partial results by their log-sum-exps
("flash decoding"; the merging rule is arXiv:2205.14135, section 3.1). Query heads that share a key head lie in
one tile, so that each key is read once for all of them.
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
)
from shared.attention.triton_forward import attend, empty_results, finish, first_of
from shared.attention.triton_tiles import Scores, multiprocessors, padded, precision, reach, strides, tiles

MOST_ROWS = 64
FEWEST_KEYS = 512


def is_decoding(q: Tensor, k: Tensor) -> bool:
    """Whether the queries of all heads that share keys fit into one tile, and there are keys enough to split."""
    rows = q.shape[1] // k.shape[1] * q.shape[2]
    return q.numel() > 0 and rows <= MOST_ROWS and k.shape[2] >= FEWEST_KEYS


def decode(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask, *, scale: float, softcap: float | None, splits: int | None = None
) -> tuple[Tensor, Tensor]:
    """What `forward` computes, with the keys of each head split among `splits` programs.

    q [batch, heads, q_len, head_dim], k [batch, kv_heads, k_len, head_dim], v [batch, kv_heads, k_len, value_dim].
    """
    batch, heads, q_len, head_dim = q.shape
    kv_heads, k_len, value_dim = v.shape[1:]
    group = heads // kv_heads
    rows = padded(group * q_len)
    tile = tiles("decode", q, v)
    if splits is None:
        # Two programs on each multiprocessor, and at least two blocks of keys for each program.
        wanted = 2 * multiprocessors(q.device) // (batch * kv_heads)
        splits = max(1, min(wanted, triton.cdiv(k_len, 2 * tile.block_k)))

    part = torch.empty(splits, batch, heads, q_len, value_dim, dtype=torch.float32, device=q.device)
    part_lse = torch.empty(splits, batch, heads, q_len, dtype=torch.float32, device=q.device)
    queries, keys = tokens_of(mask, q_len, k_len)
    behind, ahead = reach(mask)
    decode_kernel[(splits, batch * kv_heads)](
        q,
        k,
        v,
        part,
        part_lse,
        strides(q),
        strides(k),
        strides(v),
        queries,
        keys,
        blocks_to_visit(mask, q_len, k_len, padded(q_len), tile.block_k, owner="queries"),
        mask.window,
        behind,
        ahead,
        *Scores.of(scale, softcap),
        batch * heads * q_len,
        kv_heads,
        group,
        CAUSAL=mask.causal,
        HEAD_DIM=head_dim,
        VALUE_DIM=value_dim,
        WIDTH=padded(head_dim),
        VALUE_WIDTH=padded(value_dim),
        ROWS=rows,
        BLOCK_K=tile.block_k,
        PRECISION=precision(q),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    out, lse = empty_results(q, v)
    combine_kernel[(batch * heads * q_len,)](
        part,
        part_lse,
        out,
        lse,
        strides(out),
        heads,
        q_len,
        batch * heads * q_len,
        splits,
        VALUE_DIM=value_dim,
        VALUE_WIDTH=padded(value_dim),
        SPLITS=triton.next_power_of_2(splits),
        num_warps=4,
    )
    return out, lse


@triton.jit
def decode_kernel(
    q,
    k,
    v,
    part,
    part_lse,
    q_strides,
    k_strides,
    v_strides,
    queries,
    keys,
    blocks,
    window,
    behind,
    ahead,
    squash,
    sharpness,
    all_rows,
    kv_heads,
    group,
    CAUSAL: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    split, splits = tl.program_id(0), tl.num_programs(0)
    row, kv_head = tl.program_id(1) // kv_heads, tl.program_id(1) % kv_heads
    k = first_of(k, k_strides, row, kv_head)
    v = first_of(v, v_strides, row, kv_head)

    # All the queries of all the heads that share these keys, one below the other.
    slot = tl.arange(0, ROWS)
    used = slot < group * queries.length
    head, index = kv_head * group + slot // queries.length, slot % queries.length
    columns, value_columns = tl.arange(0, WIDTH), tl.arange(0, VALUE_WIDTH)
    at = first_of(q, q_strides, row, kv_head * 0) + head[:, None].to(tl.int64) * q_strides[1]
    at += index[:, None].to(tl.int64) * q_strides[2] + columns[None, :]
    query = tl.load(at, mask=used[:, None] & (columns < HEAD_DIM)[None, :], other=0.0)
    position, segment, span = read_tokens(queries, row, index)
    total = tl.zeros([ROWS], tl.float32)
    peak = tl.full([ROWS], float("-inf"), tl.float32)
    summed = tl.zeros([ROWS, VALUE_WIDTH], tl.float32)

    full_count, partial_count, live_from, full_from = plan(
        blocks, row, split * 0, split * 0, queries.length - 1, behind, ahead, keys.length, BLOCK_K
    )
    # This program's share of the live blocks, counted through the full ones and then the partial ones.
    share = tl.cdiv(full_count + partial_count, splits)
    share_from = split * share
    share_to = tl.minimum(share_from + share, full_count + partial_count)
    for number in range(share_from, tl.minimum(share_to, full_count)):
        block = full_block(blocks, number, full_count, live_from, full_from)
        summed, total, peak = attend(
            summed, total, peak, query, position, segment, span, k, v, k_strides, v_strides, keys, row, block,
            window, squash, sharpness, CAUSAL, HEAD_DIM, VALUE_DIM, WIDTH, VALUE_WIDTH, BLOCK_K, PRECISION, False,
        )  # fmt: skip
    for number in range(tl.maximum(share_from - full_count, 0), share_to - full_count):
        block = partial_block(blocks, number, full_count, live_from, full_from)
        summed, total, peak = attend(
            summed, total, peak, query, position, segment, span, k, v, k_strides, v_strides, keys, row, block,
            window, squash, sharpness, CAUSAL, HEAD_DIM, VALUE_DIM, WIDTH, VALUE_WIDTH, BLOCK_K, PRECISION, True,
        )  # fmt: skip

    output, log_sum = finish(summed, total, peak)
    place = split.to(tl.int64) * all_rows + (row * kv_heads * group + head) * queries.length + index
    tl.store(part_lse + place, log_sum, mask=used)
    at = part + place[:, None] * VALUE_DIM + value_columns[None, :]
    tl.store(at, output, mask=used[:, None] & (value_columns < VALUE_DIM)[None, :])


@triton.jit
def combine_kernel(
    part,
    part_lse,
    out,
    lse,
    out_strides,
    heads,
    q_len,
    all_rows,
    splits,
    VALUE_DIM: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """One query's output from those of all splits, each weighted by its share of the sum of exponentials."""
    place = tl.program_id(0)
    index, head, row = place % q_len, place // q_len % heads, place // q_len // heads
    split, columns = tl.arange(0, SPLITS), tl.arange(0, VALUE_WIDTH)
    of_split = split.to(tl.int64) * all_rows + place
    log_sum = tl.load(part_lse + of_split, mask=split < splits, other=float("-inf"))
    peak = tl.max(log_sum, 0)
    saw = peak > float("-inf")
    reference = tl.where(saw, peak, 0.0)
    weight = tl.exp(log_sum - reference)
    total = tl.sum(weight, 0)
    divisor = tl.where(saw, total, 1.0)
    tl.store(lse + place, tl.where(saw, reference + tl.log(divisor), float("-inf")))
    inside = (split < splits)[:, None] & (columns < VALUE_DIM)[None, :]
    parts = tl.load(part + of_split[:, None] * VALUE_DIM + columns[None, :], mask=inside, other=0.0)
    mean = tl.sum(weight[:, None] * parts, 0) / divisor
    at = first_of(out, out_strides, row, head) + index.to(tl.int64) * out_strides[2] + columns
    tl.store(at, mean.to(out.dtype.element_ty), mask=columns < VALUE_DIM)
