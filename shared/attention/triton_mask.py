"""The mask's rule as kernels read it: three integers of each token, and the question who sees whom, a tile at a time."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from shared.attention.mask import Mask

# What a number of the mask is cut to on both sides, so that the difference of two still fits 32 bits.
FARTHEST = tl.constexpr(2**30 - 1)


class Tokens(NamedTuple):
    """One side of the mask as kernels take it: integers [1 or batch, length], or None for what makes no difference."""

    length: int
    position: Tensor | None
    segment: Tensor | None
    span: Tensor | None
    # From one row of the batch to the next; 0 where all rows share one.
    position_stride: int
    segment_stride: int
    span_stride: int


def tokens_of(mask: Mask, q_len: int, k_len: int) -> tuple[Tokens, Tokens]:
    """The mask's numbers for queries and keys, without those that the rule never reads."""
    ordered = mask.causal or mask.window is not None
    together = mask.causal and mask.span_q is not None and mask.span_k is not None

    def side(length: int, position: Tensor | None, segment: Tensor | None, span: Tensor | None) -> Tokens:
        used = (position if ordered else None, segment, span if together else None)
        tensors = [None if tensor is None else tensor.contiguous() for tensor in used]
        strides = [0 if tensor is None or tensor.shape[0] == 1 else length for tensor in tensors]
        return Tokens(length, *tensors, *strides)

    queries = side(q_len, mask.position_q, mask.segment_q, mask.span_q)
    return queries, side(k_len, mask.position_k, mask.segment_k, mask.span_k)


@triton.jit
def read_numbers(pointer, first, index, inside, absent):
    """Positions, segments or spans, cut to 32 bits; `absent` where there are none."""
    if pointer is None:
        return absent
    else:
        numbers = tl.load(pointer + first + index, mask=inside, other=-1)
        return tl.minimum(tl.maximum(numbers, -FARTHEST), FARTHEST).to(tl.int32)


@triton.jit
def read_tokens(tokens, row, index):
    """Position, segment and span of the tokens `index` of one row of the batch; past the end all is padding."""
    inside = index < tokens.length
    row = row.to(tl.int64)
    position = read_numbers(tokens.position, row * tokens.position_stride, index, inside, index)
    segment = read_numbers(tokens.segment, row * tokens.segment_stride, index, inside, tl.zeros_like(index))
    span = read_numbers(tokens.span, row * tokens.span_stride, index, inside, tl.full(index.shape, -1, tl.int32))
    return position, tl.where(inside, segment, -1), span


@triton.jit
def down(tokens):
    """The numbers of a block's tokens, laid along the rows of a tile."""
    return tokens[0][:, None], tokens[1][:, None], tokens[2][:, None]


@triton.jit
def across(tokens):
    """The numbers of a block's tokens, laid along the columns of a tile."""
    return tokens[0][None, :], tokens[1][None, :], tokens[2][None, :]


@triton.jit
def visible(queries, keys, window, CAUSAL: tl.constexpr):
    """The rule of `Mask` for every pair of a tile; queries may lie down its rows or across its columns."""
    position_q, segment_q, span_q = queries
    position_k, segment_k, span_k = keys
    seen = (segment_q == segment_k) & (segment_k >= 0)
    if CAUSAL:
        not_ahead = position_k <= position_q
        together = (span_q == span_k) & (span_k >= 0)
        seen = seen & (not_ahead | together)
    if window is not None:
        seen = seen & (tl.abs(position_q - position_k) < window)
    return seen
