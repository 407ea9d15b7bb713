"""The mask algebra inside kernels: three integers per token, and the rule of visibility for one tile at a time."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from shared.attention.mask import Mask

# Limit of the mask's integers, so that the difference of two of them fits into 32 bits.
MAX_INTEGER = tl.constexpr(2**30 - 1)


class Tokens(NamedTuple):
    """One side of the mask for a kernel: integers [1 or batch, length], or None for those that make no difference.

    The strides lead from one row of the batch to the next; 0 where all rows share one.
    """

    length: int
    position: Tensor | None
    segment: Tensor | None
    span: Tensor | None
    position_stride: int
    segment_stride: int
    span_stride: int


def tokens_of(mask: Mask, q_len: int, k_len: int) -> tuple[Tokens, Tokens]:
    """Return the mask's integers for queries and keys, without those that the rule never reads."""
    ordered = mask.causal or mask.window is not None
    spans = mask.causal and mask.span_q is not None and mask.span_k is not None

    def side(length: int, position: Tensor | None, segment: Tensor | None, span: Tensor | None) -> Tokens:
        position, segment, span = (
            None if tensor is None else tensor.contiguous()
            for tensor in (position if ordered else None, segment, span if spans else None)
        )
        strides = (0 if x is None or x.shape[0] == 1 else length for x in (position, segment, span))
        return Tokens(length, position, segment, span, *strides)

    queries = side(q_len, mask.position_q, mask.segment_q, mask.span_q)
    return queries, side(k_len, mask.position_k, mask.segment_k, mask.span_k)


@triton.jit
def load_integers(pointer, first, index, inside, default):
    """Load positions, segments or spans, limited to 32 bits; `default` where there are none."""
    if pointer is None:
        return default
    else:
        integers = tl.load(pointer + first + index, mask=inside, other=-1)
        return tl.minimum(tl.maximum(integers, -MAX_INTEGER), MAX_INTEGER).to(tl.int32)


@triton.jit
def load_tokens(tokens, row, index):
    """Load position, segment and span of the tokens `index` of one batch row; past the end all tokens are padding."""
    inside = index < tokens.length
    row = row.to(tl.int64)
    position = load_integers(tokens.position, row * tokens.position_stride, index, inside, index)
    segment = load_integers(tokens.segment, row * tokens.segment_stride, index, inside, tl.zeros_like(index))
    span = load_integers(tokens.span, row * tokens.span_stride, index, inside, tl.full(index.shape, -1, tl.int32))
    return position, tl.where(inside, segment, -1), span


@triton.jit
def as_rows(tokens):
    """Lay the integers of a block's tokens along the rows of a tile."""
    return tokens[0][:, None], tokens[1][:, None], tokens[2][:, None]


@triton.jit
def as_columns(tokens):
    """Lay the integers of a block's tokens along the columns of a tile."""
    return tokens[0][None, :], tokens[1][None, :], tokens[2][None, :]


@triton.jit
def visible(queries, keys, window, CAUSAL: tl.constexpr):
    """Apply the rule of `Mask` to every pair of a tile; queries may be its rows or its columns."""
    position_q, segment_q, span_q = queries
    position_k, segment_k, span_k = keys
    pairs = (segment_q == segment_k) & (segment_k >= 0)
    if CAUSAL:
        not_later = position_k <= position_q
        same_span = (span_q == span_k) & (span_k >= 0)
        pairs = pairs & (not_later | same_span)
    if window is not None:
        pairs = pairs & (tl.abs(position_q - position_k) < window)
    return pairs
