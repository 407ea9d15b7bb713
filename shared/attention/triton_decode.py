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
from shared.attention.triton_blocks import blocks_to_visit, full_block, partial_block, plan
from shared.attention.triton_forward import NOTHING, attend, empty_results, finish, head_of, nothing_yet
from shared.attention.triton_mask import read_tokens, tokens_of
from shared.attention.triton_tiles import Reach, Rows, Scores, Shape, multiprocessors, padded, tiles

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
    batch, heads, q_len = q.shape[:3]
    kv_heads, k_len, value_dim = v.shape[1:]
    group = heads // kv_heads
    tile = tiles("decode", q, v)
    if splits is None:
        # Two programs on each multiprocessor, and at least two blocks of keys for each program.
        wanted = 2 * multiprocessors(q.device) // (batch * kv_heads)
        splits = max(1, min(wanted, triton.cdiv(k_len, 2 * tile.block_k)))

    part = torch.empty(splits, batch, heads, q_len, value_dim, dtype=torch.float32, device=q.device)
    part_lse = torch.empty(splits, batch, heads, q_len, dtype=torch.float32, device=q.device)
    blocks = blocks_to_visit(mask, q_len, k_len, padded(q_len), tile.block_k, owner="queries")
    decode_kernel[(splits, batch * kv_heads)](
        *(Rows.of(x) for x in (q, k, v)),
        part,
        part_lse,
        *tokens_of(mask, q_len, k_len),
        blocks,
        Reach.of(mask),
        Scores.of(scale, softcap),
        batch * heads * q_len,
        kv_heads,
        group,
        SHAPE=Shape.of(q, v, mask, padded(group * q_len), tile.block_k),
        **tile.options,
    )
    out, lse = empty_results(q, v)
    combine_kernel[(batch * heads * q_len,)](
        part,
        part_lse,
        Rows.of(out),
        lse,
        heads,
        q_len,
        batch * heads * q_len,
        splits,
        VALUE_DIM=value_dim,
        VALUE_WIDTH=padded(value_dim),
        SPLITS=triton.next_power_of_2(splits),
    )
    return out, lse


@triton.jit
def decode_kernel(
    q, k, v, part, part_lse, queries, keys, blocks, reach, scores, all_rows, kv_heads, group, SHAPE: tl.constexpr
):  # fmt: skip
    split, splits = tl.program_id(0), tl.num_programs(0)
    row, kv_head = tl.program_id(1) // kv_heads, tl.program_id(1) % kv_heads
    k, v = head_of(k, row, kv_head), head_of(v, row, kv_head)

    # All the queries of all the heads that share these keys, one below the other.
    slot = tl.arange(0, SHAPE.BLOCK_Q)
    used = slot < group * queries.length
    head, index = kv_head * group + slot // queries.length, slot % queries.length
    columns, value_columns = tl.arange(0, SHAPE.WIDTH), tl.arange(0, SHAPE.VALUE_WIDTH)
    at = (row.to(tl.int64) * q.batch + head.to(tl.int64) * q.head + index.to(tl.int64) * q.row)[:, None] + columns
    query = tl.load(q.first + at, mask=used[:, None] & (columns < SHAPE.HEAD_DIM)[None, :], other=0.0)
    own = read_tokens(queries, row, index)
    summed, total, peak = nothing_yet(SHAPE.BLOCK_Q, SHAPE.VALUE_WIDTH)

    # This program's share of the live blocks, counted through the full ones and then the partial ones.
    walk = plan(blocks, row, 0, 0, queries.length - 1, reach.behind, reach.ahead, keys.length, SHAPE.BLOCK_K)
    share = tl.cdiv(walk.full + walk.partial, splits)
    share_from = split * share
    share_to = tl.minimum(share_from + share, walk.full + walk.partial)
    for number in range(share_from, tl.minimum(share_to, walk.full)):
        block = full_block(blocks, walk, number)
        summed, total, peak = attend(
            summed, total, peak, query, own, k, v, keys, row, block, reach.window, scores, SHAPE, False
        )
    for number in range(tl.maximum(share_from - walk.full, 0), share_to - walk.full):
        block = partial_block(blocks, walk, number)
        summed, total, peak = attend(
            summed, total, peak, query, own, k, v, keys, row, block, reach.window, scores, SHAPE, True
        )

    output, log_sum = finish(summed, total, peak)
    place = split.to(tl.int64) * all_rows + (row * kv_heads * group + head) * queries.length + index
    tl.store(part_lse + place, log_sum, mask=used)
    at = part + place[:, None] * SHAPE.VALUE_DIM + value_columns[None, :]
    tl.store(at, output, mask=used[:, None] & (value_columns < SHAPE.VALUE_DIM)[None, :])


@triton.jit
def combine_kernel(
    part,
    part_lse,
    out,
    lse,
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
    log_sum = tl.load(part_lse + of_split, mask=split < splits, other=NOTHING)
    peak = tl.max(log_sum, 0)
    saw = peak > NOTHING
    reference = tl.where(saw, peak, 0.0)
    weight = tl.exp(log_sum - reference)
    total = tl.sum(weight, 0)
    divisor = tl.where(saw, total, 1.0)
    tl.store(lse + place, tl.where(saw, reference + tl.log(total), NOTHING))
    inside = (split < splits)[:, None] & (columns < VALUE_DIM)[None, :]
    parts = tl.load(part + of_split[:, None] * VALUE_DIM + columns[None, :], mask=inside, other=0.0)
    mean = tl.sum(weight[:, None] * parts, 0) / divisor
    at = head_of(out, row, head).first + index.to(tl.int64) * out.row + columns
    tl.store(at, mean.to(out.first.dtype.element_ty), mask=columns < VALUE_DIM)
