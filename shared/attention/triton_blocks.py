"""Which tiles of the score matrix hold anything to see, and the lists of blocks that kernels walk along.

A tile is the meeting of one block of queries and one block of keys. It is *empty* (no pair visible: skipped),
*full* (every pair visible: computed with no mask at all) or *partial* (the rule is applied pair by pair).
Each kernel owns one block of one side and walks over the blocks of the other, full ones first.
"""

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
import triton
import triton.language as tl
from torch import Tensor

from shared.attention.mask import Mask
from shared.attention.triton_mask import FARTHEST, Tokens, across, down, read_tokens, tokens_of, visible

EMPTY, PARTIAL, FULL = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


class Blocks(NamedTuple):
    """For each owning block, which blocks of the other side to visit.

    index       int32 [1 or batch, owners, others]: full blocks in order from the left, partial ones from the right
    full        int32 [1 or batch, owners]: how many are full
    partial     int32 [1 or batch, owners]: how many are partial
    """

    index: Tensor
    full: Tensor
    partial: Tensor
    owners: int
    others: int
    # 1 when every row of the batch has lists of its own, 0 when all share one.
    own_rows: int


def blocks_to_visit(mask: Mask, q_len: int, k_len: int, block_q: int, block_k: int, *, owner: str) -> Blocks | None:
    """Lists of the blocks that each block of the `owner` ("queries" or "keys") must visit, from one pass over the mask.

    None when positions are counted and there are no segments and spans: the blocks are then a plain range, which a
    kernel finds by itself (`counted_blocks`). Lists are kept as long as the mask is, and its tensors don't change.
    """
    queries, keys = tokens_of(mask, q_len, k_len)
    if not any(isinstance(t, Tensor) for t in (*queries, *keys)):
        return None
    if any(t.is_inference() for t in mask.tensors.values()):
        # Such tensors don't count their changes, so a kept list could be an old one.
        return _list_blocks(mask, queries, keys, block_q, block_k, owner)
    kept = _KEPT.setdefault(mask, {})
    key = (q_len, k_len, block_q, block_k, owner)
    versions = [t._version for t in mask.tensors.values()]
    if key not in kept or kept[key][0] != versions:
        kept[key] = (versions, _list_blocks(mask, queries, keys, block_q, block_k, owner))
    return kept[key][1]


_KEPT: WeakKeyDictionary[Mask, dict] = WeakKeyDictionary()


def _list_blocks(mask: Mask, queries: Tokens, keys: Tokens, block_q: int, block_k: int, owner: str) -> Blocks:
    rows = max(t.shape[0] for t in (*queries, *keys) if isinstance(t, Tensor))
    device = next(t.device for t in (*queries, *keys) if isinstance(t, Tensor))
    owning, other = (queries, keys) if owner == "queries" else (keys, queries)
    block_owner, block_other = (block_q, block_k) if owner == "queries" else (block_k, block_q)
    owners, others = triton.cdiv(owning.length, block_owner), triton.cdiv(other.length, block_other)

    kind = torch.empty(rows, owners, others, dtype=torch.int8, device=device)
    index = torch.empty(rows, owners, others, dtype=torch.int32, device=device)
    full, partial = (torch.empty(rows, owners, dtype=torch.int32, device=device) for _ in range(2))
    if kind.numel() == 0:
        return Blocks(index, full.zero_(), partial.zero_(), owners, others, int(rows > 1))
    chunk = min(32, triton.next_power_of_2(others))
    classify_kernel[(rows * owners, triton.cdiv(others, chunk))](
        owning,
        other,
        kind,
        owners,
        others,
        mask.window,
        CAUSAL=mask.causal,
        OWNER_IS_QUERY=owner == "queries",
        BLOCK_OWNER=block_owner,
        BLOCK_OTHER=block_other,
        CHUNK=chunk,
    )
    list_kernel[(rows * owners,)](
        kind, index, full, partial, others, CHUNK=min(1024, triton.next_power_of_2(others)), num_warps=1
    )
    return Blocks(index, full, partial, owners, others, int(rows > 1))


@triton.jit
def counted_blocks(first, last, behind, ahead, length, BLOCK: tl.constexpr):
    """The range of live blocks, and the range of full ones within it, where tokens are counted from 0.

    Token x sees tokens x − behind … x + ahead of the other side, which has `length` of them. What tokens
    first … last see together is one interval; what each of them sees, the full blocks, is a smaller one.
    """
    see_from, see_to = tl.maximum(first - behind, 0), tl.minimum(last + ahead + 1, length)
    all_from, all_to = tl.maximum(last - behind, 0), tl.minimum(first + ahead + 1, length)
    live_from = see_from // BLOCK
    live_to = tl.where(see_from < see_to, tl.cdiv(see_to, BLOCK), live_from)
    full_from = tl.minimum(tl.cdiv(all_from, BLOCK), live_to)
    full_to = tl.maximum(all_to // BLOCK, full_from)
    return live_from, live_to, full_from, full_to


@triton.jit
def classify_kernel(
    owning,
    other,
    kind,
    owners,
    others,
    window,
    CAUSAL: tl.constexpr,
    OWNER_IS_QUERY: tl.constexpr,
    BLOCK_OWNER: tl.constexpr,
    BLOCK_OTHER: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Empty, partial or full: one owning block against CHUNK blocks of the other side.

    The smallest and largest numbers of each block settle most tiles. Where they leave a doubt, the rule is
    applied pair by pair, so that the answer is exact: what is visited holds something to see.
    """
    row, owner = tl.program_id(0) // owners, tl.program_id(0) % owners
    own = owner * BLOCK_OWNER + tl.arange(0, BLOCK_OWNER)
    mine = read_tokens(owning, row, own)
    # What hangs over the end of the owning block is computed and thrown away: it need not see anything.
    beyond = own >= owning.length

    number = tl.arange(0, CHUNK)
    block = tl.program_id(1) * CHUNK + number
    theirs = read_tokens(other, row, block[:, None] * BLOCK_OTHER + tl.arange(0, BLOCK_OTHER)[None, :])
    if OWNER_IS_QUERY:
        may, must = judge(summarize(mine, 0), summarize(theirs, 1), window, CAUSAL)
    else:
        may, must = judge(summarize(theirs, 1), summarize(mine, 0), window, CAUSAL)
    no_padding = (tl.min(tl.where(beyond, 0, mine[1]), 0) >= 0) & (tl.min(theirs[1], 1) >= 0)
    kinds = tl.where(may, tl.where(must & no_padding, FULL, PARTIAL), EMPTY)

    doubtful = (kinds == PARTIAL).to(tl.int32)
    if tl.sum(doubtful, 0) > 0:
        for candidate in range(CHUNK):
            if tl.sum(tl.where(number == candidate, doubtful, 0), 0) > 0:
                start = (tl.program_id(1) * CHUNK + candidate) * BLOCK_OTHER
                one = read_tokens(other, row, start + tl.arange(0, BLOCK_OTHER))
                if OWNER_IS_QUERY:
                    seen = visible(down(mine), across(one), window, CAUSAL)
                else:
                    seen = visible(across(one), down(mine), window, CAUSAL)
                any_seen = tl.max(tl.max(seen.to(tl.int32), 1), 0)
                all_seen = tl.min(tl.min((seen | beyond[:, None]).to(tl.int32), 1), 0)
                exact = tl.where(any_seen == 1, tl.where(all_seen == 1, FULL, PARTIAL), EMPTY)
                kinds = tl.where(number == candidate, exact, kinds)

    at = kind + tl.program_id(0).to(tl.int64) * others + block
    tl.store(at, kinds.to(tl.int8), mask=block < others)


@triton.jit
def summarize(tokens, AXIS: tl.constexpr):
    """Smallest and largest position, segment and span among a block's tokens that are not padding."""
    position, segment, span = tokens
    real = segment >= 0
    return (
        tl.min(tl.where(real, position, FARTHEST), AXIS),
        tl.max(tl.where(real, position, -FARTHEST), AXIS),
        tl.min(tl.where(real, segment, FARTHEST), AXIS),
        tl.max(tl.where(real, segment, -FARTHEST), AXIS),
        tl.min(tl.where(real, span, FARTHEST), AXIS),
        tl.max(tl.where(real, span, -FARTHEST), AXIS),
    )


@triton.jit
def judge(queries, keys, window, CAUSAL: tl.constexpr):
    """From two summaries: may any pair be visible, and must every pair be (of tokens that are not padding)?"""
    position_q, last_q, segment_q, high_q, span_q, top_q = queries
    position_k, last_k, segment_k, high_k, span_k, top_k = keys
    may = (segment_q <= high_k) & (segment_k <= high_q)
    # low = high of the other, both ways: then all four are one number.
    must = (segment_q == high_k) & (segment_k == high_q)
    if CAUSAL:
        may_share = (tl.maximum(span_q, 0) <= top_k) & (tl.maximum(span_k, 0) <= top_q)
        must_share = (span_q == top_k) & (span_k == top_q) & (span_q >= 0)
        may = may & ((position_k <= last_q) | may_share)
        must = must & ((last_k <= position_q) | must_share)
    if window is not None:
        may = may & (position_k - last_q < window) & (position_q - last_k < window)
        must = must & (last_q - position_k < window) & (last_k - position_q < window)
    return may, must


@triton.jit
def list_kernel(kind, index, full, partial, others, CHUNK: tl.constexpr):
    """Gather the full blocks of one owner from the left of its list, the partial ones from the right."""
    owner = tl.program_id(0).to(tl.int64)
    kind += owner * others
    index += owner * others
    full_count, partial_count = 0, 0
    for start in range(0, others, CHUNK):
        block = start + tl.arange(0, CHUNK)
        kinds = tl.load(kind + block, mask=block < others, other=0).to(tl.int32)
        is_full, is_partial = (kinds == FULL).to(tl.int32), (kinds == PARTIAL).to(tl.int32)
        tl.store(index + full_count + tl.cumsum(is_full, 0) - 1, block, mask=is_full == 1)
        tl.store(index + others - partial_count - tl.cumsum(is_partial, 0), block, mask=is_partial == 1)
        full_count += tl.sum(is_full, 0)
        partial_count += tl.sum(is_partial, 0)
    tl.store(full + owner, full_count)
    tl.store(partial + owner, partial_count)


class Walk(NamedTuple):
    """What one owning block visits: how many full and partial blocks, and where to find out which."""

    full: int
    partial: int
    live_from: int
    full_from: int


@triton.jit
def plan(blocks, row, owner, first, last, behind, ahead, length, BLOCK: tl.constexpr):
    """The walk of one owning block: from its lists if there are any, else from its tokens first … last."""
    if blocks is None:
        live_from, live_to, full_from, full_to = counted_blocks(first, last, behind, ahead, length, BLOCK)
        return Walk(full_to - full_from, live_to - live_from - (full_to - full_from), live_from, full_from)
    else:
        entry = row.to(tl.int64) * blocks.own_rows * blocks.owners + owner
        start = entry * blocks.others
        return Walk(tl.load(blocks.full + entry), tl.load(blocks.partial + entry), start, start)


@triton.jit
def full_block(blocks, walk, number):
    """Which block is the `number`-th full one."""
    if blocks is None:
        return walk.full_from + number
    else:
        return tl.load(blocks.index + walk.full_from + number)


@triton.jit
def partial_block(blocks, walk, number):
    """Which block is the `number`-th partial one: in a range they lie on both sides of the full ones."""
    if blocks is None:
        block = walk.live_from + number
        return tl.where(block < walk.full_from, block, block + walk.full)
    else:
        return tl.load(blocks.index + walk.live_from + blocks.others - 1 - number)
