"""Which tiles of the score matrix contain visible pairs, and the lists of blocks that kernels visit.

A tile is the intersection of one block of queries and one block of keys. It is *empty* (no pair visible: skipped),
*full* (every pair visible: computed without a mask) or *partial* (the rule is applied pair by pair). Each kernel owns
one block of one side and visits the blocks of the other side, full ones first.
"""

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
import triton
import triton.language as tl
from torch import Tensor

from shared.attention.inputs import AttentionInputs
from shared.attention.mask import Mask
from shared.attention.triton_launch import Reach, Scores
from shared.attention.triton_mask import MAX_INTEGER, Tokens, as_columns, as_rows, load_tokens, tokens_of, visible

EMPTY, PARTIAL, FULL = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


class Blocks(NamedTuple):
    """For each owning block, which blocks of the other side to visit.

    indices   int32 [1 or batch, owners, others]: full blocks in order from the left, partial ones from the right
    full      int32 [1 or batch, owners]: number of full blocks
    partial   int32 [1 or batch, owners]: number of partial blocks
    row_step  1 when every row of the batch has its own lists, 0 when all share one
    """

    indices: Tensor
    full: Tensor
    partial: Tensor
    owners: int
    others: int
    row_step: int


class Problem(NamedTuple):
    """The properties of an attention call besides its tensors; `group` query heads share one key head."""

    queries: Tokens
    keys: Tokens
    blocks: Blocks | None
    reach: Reach
    scores: Scores
    heads: int
    group: int

    @classmethod
    def of(cls, inputs: AttentionInputs, blocks: Blocks | None) -> "Problem":
        heads, kv_heads = inputs.q.shape[1], inputs.k.shape[1]
        tokens = tokens_of(inputs.mask, inputs.q.shape[2], inputs.k.shape[2])
        scores = Scores.of(inputs.scale, inputs.softcap)
        return cls(*tokens, blocks, Reach.of(inputs.mask), scores, heads, heads // kv_heads)


class ClassifyShape(NamedTuple):
    """The constants that `classify_kernel` is compiled for."""

    CAUSAL: bool
    OWNER_IS_QUERY: bool
    BLOCK_OWNER: int
    BLOCK_OTHER: int
    CHUNK: int


def blocks_to_visit(mask: Mask, q_len: int, k_len: int, block_q: int, block_k: int, *, owner: str) -> Blocks | None:
    """Return the blocks that each block of the `owner` ("queries" or "keys") must visit, from one pass over the mask.

    The result is None when positions are counted and there are no segments and spans: the blocks are then a range,
    which a kernel computes itself (`counted_blocks`). Lists are cached per mask until one of its tensors changes.
    """
    queries, keys = tokens_of(mask, q_len, k_len)
    if not any(isinstance(t, Tensor) for t in (*queries, *keys)):
        return None
    if any(t.is_inference() for t in mask.tensors.values()):
        # Inference tensors do not count their changes, so a cached list could be outdated.
        return _list_blocks(mask, queries, keys, block_q, block_k, owner)
    cache = _CACHES.setdefault(mask, {})
    key = (q_len, k_len, block_q, block_k, owner)
    versions = [t._version for t in mask.tensors.values()]
    if key not in cache or cache[key][0] != versions:
        cache[key] = (versions, _list_blocks(mask, queries, keys, block_q, block_k, owner))
    return cache[key][1]


_CACHES: WeakKeyDictionary[Mask, dict] = WeakKeyDictionary()


def _list_blocks(mask: Mask, queries: Tokens, keys: Tokens, block_q: int, block_k: int, owner: str) -> Blocks:
    rows = max(t.shape[0] for t in (*queries, *keys) if isinstance(t, Tensor))
    device = next(t.device for t in (*queries, *keys) if isinstance(t, Tensor))
    owning, other = (queries, keys) if owner == "queries" else (keys, queries)
    block_owner, block_other = (block_q, block_k) if owner == "queries" else (block_k, block_q)
    owners, others = triton.cdiv(owning.length, block_owner), triton.cdiv(other.length, block_other)

    kinds = torch.empty(rows, owners, others, dtype=torch.int8, device=device)
    indices = torch.empty(rows, owners, others, dtype=torch.int32, device=device)
    full, partial = (torch.empty(rows, owners, dtype=torch.int32, device=device) for _ in range(2))
    if kinds.numel() == 0:
        return Blocks(indices, full.zero_(), partial.zero_(), owners, others, int(rows > 1))
    chunk = min(32, triton.next_power_of_2(others))
    shape = ClassifyShape(mask.causal, owner == "queries", block_owner, block_other, chunk)
    classify_kernel[(rows * owners, triton.cdiv(others, chunk))](owning, other, kinds, mask.window, SHAPE=shape)
    list_kernel[(rows * owners,)](
        kinds, indices, full, partial, others, CHUNK=min(1024, triton.next_power_of_2(others)), num_warps=1
    )
    return Blocks(indices, full, partial, owners, others, int(rows > 1))


@triton.jit
def classify_kernel(owning, other, kinds, window, SHAPE: tl.constexpr):
    """Classify the tiles of one owning block with CHUNK blocks of the other side as empty, partial or full.

    The smallest and largest integers of each block decide most tiles. Where they leave a doubt, the rule is applied
    pair by pair, so that the answer is exact: every visited tile contains a visible pair.
    """
    owners, others = tl.cdiv(owning.length, SHAPE.BLOCK_OWNER), tl.cdiv(other.length, SHAPE.BLOCK_OTHER)
    row, owner = tl.program_id(0) // owners, tl.program_id(0) % owners
    owner_index = owner * SHAPE.BLOCK_OWNER + tl.arange(0, SHAPE.BLOCK_OWNER)
    owner_tokens = load_tokens(owning, row, owner_index)
    # Tokens past the end of the owning block are computed and discarded: they need not see anything.
    beyond = owner_index >= owning.length

    number = tl.arange(0, SHAPE.CHUNK)
    block = tl.program_id(1) * SHAPE.CHUNK + number
    index = block[:, None] * SHAPE.BLOCK_OTHER + tl.arange(0, SHAPE.BLOCK_OTHER)[None, :]
    other_tokens = load_tokens(other, row, index)
    if SHAPE.OWNER_IS_QUERY:
        possible, certain = bound_visibility(ranges(owner_tokens, 0), ranges(other_tokens, 1), window, SHAPE.CAUSAL)
    else:
        possible, certain = bound_visibility(ranges(other_tokens, 1), ranges(owner_tokens, 0), window, SHAPE.CAUSAL)
    no_padding = (tl.min(tl.where(beyond, 0, owner_tokens[1]), 0) >= 0) & (tl.min(other_tokens[1], 1) >= 0)
    tile_kinds = tl.where(possible, tl.where(certain & no_padding, FULL, PARTIAL), EMPTY)

    uncertain = (tile_kinds == PARTIAL).to(tl.int32)
    if tl.sum(uncertain, 0) > 0:
        for candidate in range(SHAPE.CHUNK):
            if tl.sum(tl.where(number == candidate, uncertain, 0), 0) > 0:
                start = (tl.program_id(1) * SHAPE.CHUNK + candidate) * SHAPE.BLOCK_OTHER
                block_tokens = load_tokens(other, row, start + tl.arange(0, SHAPE.BLOCK_OTHER))
                if SHAPE.OWNER_IS_QUERY:
                    pairs = visible(as_rows(owner_tokens), as_columns(block_tokens), window, SHAPE.CAUSAL)
                else:
                    pairs = visible(as_columns(block_tokens), as_rows(owner_tokens), window, SHAPE.CAUSAL)
                any_visible = tl.max(tl.max(pairs.to(tl.int32), 1), 0)
                all_visible = tl.min(tl.min((pairs | beyond[:, None]).to(tl.int32), 1), 0)
                exact = tl.where(any_visible == 1, tl.where(all_visible == 1, FULL, PARTIAL), EMPTY)
                tile_kinds = tl.where(number == candidate, exact, tile_kinds)

    pointers = kinds + tl.program_id(0).to(tl.int64) * others + block
    tl.store(pointers, tile_kinds.to(tl.int8), mask=block < others)


@triton.jit
def ranges(tokens, AXIS: tl.constexpr):
    """Return the smallest and largest position, segment and span among a block's tokens that are not padding."""
    position, segment, span = tokens
    real = segment >= 0
    return (
        tl.min(tl.where(real, position, MAX_INTEGER), AXIS),
        tl.max(tl.where(real, position, -MAX_INTEGER), AXIS),
        tl.min(tl.where(real, segment, MAX_INTEGER), AXIS),
        tl.max(tl.where(real, segment, -MAX_INTEGER), AXIS),
        tl.min(tl.where(real, span, MAX_INTEGER), AXIS),
        tl.max(tl.where(real, span, -MAX_INTEGER), AXIS),
    )


@triton.jit
def bound_visibility(queries, keys, window, CAUSAL: tl.constexpr):
    """From the ranges of two blocks, return whether a visible pair is possible, and whether all pairs are certain.

    Padding is ignored.
    """
    min_position_q, max_position_q, min_segment_q, max_segment_q, min_span_q, max_span_q = queries
    min_position_k, max_position_k, min_segment_k, max_segment_k, min_span_k, max_span_k = keys
    possible = (min_segment_q <= max_segment_k) & (min_segment_k <= max_segment_q)
    # Each side's minimum equals the other's maximum: then all four are one number.
    certain = (min_segment_q == max_segment_k) & (min_segment_k == max_segment_q)
    if CAUSAL:
        share_possible = (tl.maximum(min_span_q, 0) <= max_span_k) & (tl.maximum(min_span_k, 0) <= max_span_q)
        share_certain = (min_span_q == max_span_k) & (min_span_k == max_span_q) & (min_span_q >= 0)
        possible = possible & ((min_position_k <= max_position_q) | share_possible)
        certain = certain & ((max_position_k <= min_position_q) | share_certain)
    if window is not None:
        possible = possible & (min_position_k - max_position_q < window) & (min_position_q - max_position_k < window)
        certain = certain & (max_position_q - min_position_k < window) & (max_position_k - min_position_q < window)
    return possible, certain


@triton.jit
def list_kernel(kinds, indices, full, partial, others, CHUNK: tl.constexpr):
    """List the full blocks of one owner from the left of its row in `indices`, the partial ones from the right."""
    owner = tl.program_id(0).to(tl.int64)
    kinds += owner * others
    indices += owner * others
    full_count, partial_count = 0, 0
    for start in range(0, others, CHUNK):
        block = start + tl.arange(0, CHUNK)
        block_kinds = tl.load(kinds + block, mask=block < others, other=0).to(tl.int32)
        is_full, is_partial = (block_kinds == FULL).to(tl.int32), (block_kinds == PARTIAL).to(tl.int32)
        tl.store(indices + full_count + tl.cumsum(is_full, 0) - 1, block, mask=is_full == 1)
        tl.store(indices + others - partial_count - tl.cumsum(is_partial, 0), block, mask=is_partial == 1)
        full_count += tl.sum(is_full, 0)
        partial_count += tl.sum(is_partial, 0)
    tl.store(full + owner, full_count)
    tl.store(partial + owner, partial_count)


class Plan(NamedTuple):
    """What one owning block visits: how many full and partial blocks, and where to find their numbers."""

    full: int
    partial: int
    live_from: int
    full_from: int


@triton.jit
def plan_visits(blocks, row, owner, tokens, reach, length, BLOCK: tl.constexpr):
    """Plan the visits of one owning block: from its lists if there are any, else from its tokens (first, last).

    `reach` is (behind, ahead): how far the owner's tokens attend to, or are visible from, the other side.
    """
    if blocks is None:
        live_from, live_to, full_from, full_to = counted_blocks(tokens, reach, length, BLOCK)
        return Plan(full_to - full_from, live_to - live_from - (full_to - full_from), live_from, full_from)
    else:
        entry = row.to(tl.int64) * blocks.row_step * blocks.owners + owner
        start = entry * blocks.others
        return Plan(tl.load(blocks.full + entry), tl.load(blocks.partial + entry), start, start)


@triton.jit
def counted_blocks(tokens, reach, length, BLOCK: tl.constexpr):
    """Return the range of live blocks, and the range of full ones within it, where tokens are counted from 0.

    Token x pairs with tokens x − behind … x + ahead of the other side, which has `length` tokens. The tokens that pair
    with any of first … last are one interval; those that pair with all of them, the full blocks, are a smaller one.
    """
    first, last = tokens
    behind, ahead = reach
    any_from, any_to = tl.maximum(first - behind, 0), tl.minimum(last + ahead + 1, length)
    all_from, all_to = tl.maximum(last - behind, 0), tl.minimum(first + ahead + 1, length)
    live_from = any_from // BLOCK
    live_to = tl.where(any_from < any_to, tl.cdiv(any_to, BLOCK), live_from)
    full_from = tl.minimum(tl.cdiv(all_from, BLOCK), live_to)
    full_to = tl.maximum(all_to // BLOCK, full_from)
    return live_from, live_to, full_from, full_to


@triton.jit
def full_block(blocks, plan, number):
    """Return which block is the `number`-th full one."""
    if blocks is None:
        return plan.full_from + number
    else:
        return tl.load(blocks.indices + plan.full_from + number)


@triton.jit
def partial_block(blocks, plan, number):
    """Return which block is the `number`-th partial one: in a range they lie on both sides of the full ones."""
    if blocks is None:
        block = plan.live_from + number
        return tl.where(block < plan.full_from, block, block + plan.full)
    else:
        return tl.load(blocks.indices + plan.live_from + blocks.others - 1 - number)
