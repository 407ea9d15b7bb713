"""Attention through PyTorch's fused `scaled_dot_product_attention`, wherever it can express the mask.

The fused function supports three masks: none, `is_causal` (aligned at the top left), and a dense matrix. Packed
segments need no dense matrix: each segment is cut out and attends separately, with one of the cheaper masks.
What the fused function does not support, a softcap or a log-sum-exp, is computed as in `naive`, in float32.
"""

import itertools
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from shared.attention.inputs import AttentionInputs, Gradients, OutputGradient
from shared.attention.mask import FULL_ATTENTION, Mask
from shared.attention.naive import attention_backward_naive, attention_naive

# One more call of the fused function costs about as much as this many scores (query–key pairs over all heads), as
# measured by benchmarks/attention_cpu.py: below this size, one call with a dense mask is faster.
SCORES_PER_CALL = 16_384


def attention_sdpa(
    inputs: AttentionInputs, *, return_lse: bool = False
) -> tuple[Float[Tensor, "batch heads q_len value_dim"], Float[Tensor, "batch heads q_len"] | None]:
    """Compute attention by the cheapest fused calls that express the mask; the log-sum-exp only on request."""
    if inputs.softcap is not None or return_lse:
        return attention_naive(inputs, torch.promote_types(inputs.q.dtype, torch.float32))
    if _slow_in_half_precision(inputs):
        wide = replace(inputs, q=inputs.q.float(), k=inputs.k.float(), v=inputs.v.float())
        with torch.autocast("cpu", enabled=False):  # which would convert the arguments back
            return attention_sdpa(wide)[0].to(inputs.q.dtype), None
    # Cutting depends on the values of the segments, which a traced program does not have.
    if inputs.bias is None and not torch.compiler.is_compiling():
        pieces = _pieces(inputs.mask, inputs.q.shape, inputs.k.shape)
        if pieces is not None:
            return _attend_by_segment(inputs, pieces), None
    return _fused(inputs), None


def _slow_in_half_precision(inputs: AttentionInputs) -> bool:
    """Return whether the fused function's backward pass would run in half precision on a CPU.

    With heads of 32 dimensions and packed rows of 224 tokens it takes four times as long as in float32, conversion
    included.
    """
    is_half = inputs.q.device.type == "cpu" and inputs.q.dtype.itemsize < 4
    return is_half and torch.is_grad_enabled() and any(x.requires_grad for x in (inputs.q, inputs.k, inputs.v))


def attention_backward_sdpa(inputs: AttentionInputs, output: OutputGradient) -> Gradients:
    """Run the backward pass of `naive` in float32 or wider: the fused function accepts no external log-sum-exp."""
    return attention_backward_naive(inputs, output, torch.promote_types(inputs.q.dtype, torch.float32))


def _fused(inputs: AttentionInputs) -> Float[Tensor, "batch heads q_len value_dim"]:
    """Call the fused function once, with no mask, `is_causal` or a dense matrix."""
    q, k, v, mask, bias = inputs.q, inputs.k, inputs.v, inputs.mask, inputs.bias
    q_len, k_len, value_dim = q.shape[2], k.shape[2], v.shape[3]
    is_causal = bias is None and _is_causal_from_the_top_left(mask)
    dense = None
    if bias is not None or not (is_causal or _is_full(mask)):
        dense = mask.visible(q_len, k_len, q.device)[:, None]
        if bias is not None:
            dense = bias.to(q.dtype).masked_fill(~dense, -torch.inf)
    # Unequal head and value dimensions would select a path that is slower by half; zeros change no score and no sum.
    width = max(q.shape[3], value_dim)
    q, k, v = (F.pad(x, (0, width - x.shape[3])) if x.shape[3] < width else x for x in (q, k, v))
    grouped = q.shape[1] != k.shape[1]
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=dense, is_causal=is_causal, scale=inputs.scale, enable_gqa=grouped
    )
    return out[..., :value_dim]


def _is_full(mask: Mask) -> bool:
    return not mask.causal and mask.window is None and mask.segment_q is None and mask.segment_k is None


def _is_causal_from_the_top_left(mask: Mask) -> bool:
    """Return whether key j is visible to query i exactly when j ≤ i, judged without reading the tensors' values."""
    return mask.causal and mask.window is None and not mask.tensors


@dataclass(frozen=True)
class _Piece:
    """Queries [q_start, q_end) of one batch row (or of all) and the keys [k_start, k_end) of the same segment."""

    q_start: int
    q_end: int
    k_start: int
    k_end: int


def _pieces(mask: Mask, q_shape: torch.Size, k_shape: torch.Size) -> list[list[_Piece]] | None:
    """Return how to cut the batch by segments: one list per row, or one for all; None where cutting does not pay.

    Queries may have any order. The keys of a segment must lie in one run, or they are not a slice.
    """
    if mask.segment_q is None and mask.segment_k is None:
        return None
    (batch, heads, q_len, _), k_len = q_shape, k_shape[2]
    rows = 1 if _same_in_every_row(mask) else batch
    dense = batch * heads * q_len * k_len + SCORES_PER_CALL
    if rows * SCORES_PER_CALL > dense:
        return None
    tensors = mask.filled_tensors(q_len, k_len)
    pieces = []
    for segments_q, segments_k in zip(
        tensors["segment_q"].expand(batch, -1)[:rows].tolist(),
        tensors["segment_k"].expand(batch, -1)[:rows].tolist(),
        strict=True,
    ):
        key_runs = [run for run in _runs(segments_k) if run[0] >= 0]
        keys_of = {segment: (start, end) for segment, start, end in key_runs}
        if len(keys_of) < len(key_runs):
            return None
        pieces.append([_Piece(start, end, *keys_of.get(segment, (0, 0))) for segment, start, end in _runs(segments_q)])
    all_pieces = [piece for row in pieces for piece in row]
    scores = sum((piece.q_end - piece.q_start) * (piece.k_end - piece.k_start) for piece in all_pieces)
    cut = scores * heads * (batch // rows) + len(all_pieces) * SCORES_PER_CALL
    return pieces if scores > 0 and cut <= dense else None


def _same_in_every_row(mask: Mask) -> bool:
    """Return whether all rows of the batch have the same mask."""
    return all(tensor.shape[0] == 1 or bool((tensor == tensor[:1]).all()) for tensor in mask.tensors.values())


def _runs(segments: list[int]) -> list[tuple[int, int, int]]:
    """Return runs of equal numbers as (number, start, end): 0 0 0 1 1 gives (0, 0, 3) and (1, 3, 5)."""
    runs: list[tuple[int, int, int]] = []
    start = 0
    for segment, members in itertools.groupby(segments):
        end = start + sum(1 for _ in members)
        runs.append((segment, start, end))
        start = end
    return runs


def _attend_by_segment(
    inputs: AttentionInputs, pieces: list[list[_Piece]]
) -> Float[Tensor, "batch heads q_len value_dim"]:
    """Compute each segment separately and concatenate the outputs."""
    q, k, v, mask = inputs.q, inputs.k, inputs.v, inputs.mask
    per_row = q.shape[0] // len(pieces)
    rows = []
    # The gradient of `split` is one concatenation; the gradients of slices would each fill a tensor of zeros.
    for row, (q_row, k_row, v_row) in enumerate(zip(q.split(per_row), k.split(per_row), v.split(per_row), strict=True)):
        queries = q_row.split([piece.q_end - piece.q_start for piece in pieces[row]], dim=2)
        keys, values = _split_at(k_row, pieces[row]), _split_at(v_row, pieces[row])
        outs = []
        for piece, q_piece in zip(pieces[row], queries, strict=True):
            place = (piece.k_start, piece.k_end)
            if piece.k_start < piece.k_end:
                segment = replace(inputs, q=q_piece, k=keys[place], v=values[place], mask=_mask_of(mask, row, piece))
                outs.append(_fused(segment))
            else:
                outs.append(v.new_zeros(*q_piece.shape[:3], v.shape[3]))
        rows.append(torch.cat(outs, dim=2))
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _split_at(x: Float[Tensor, "batch heads length dim"], pieces: list[_Piece]) -> dict[tuple[int, int], Tensor]:
    """Return the slices of `x` that the pieces attend to, by (start, end)."""
    cuts = sorted({0, x.shape[2]} | {end for piece in pieces for end in (piece.k_start, piece.k_end)})
    places = list(itertools.pairwise(cuts))
    return dict(zip(places, x.split([end - start for start, end in places], dim=2), strict=True))


def _mask_of(mask: Mask, row: int, piece: _Piece) -> Mask:
    """Return the mask inside one segment: without segments, and without positions where they are the default ones."""
    if not mask.causal and mask.window is None:
        return FULL_ATTENTION
    q_len, k_len = piece.q_end - piece.q_start, piece.k_end - piece.k_start
    position_q = _cut(mask.position_q, row, piece.q_start, piece.q_end)
    position_k = _cut(mask.position_k, row, piece.k_start, piece.k_end)
    window = mask.window
    if _count_from_the_same_start(position_q, position_k, piece):
        position_q = position_k = None
        if window is not None and window >= max(q_len, k_len):
            window = None
    else:
        position_q = torch.arange(piece.q_start, piece.q_end)[None] if position_q is None else position_q
        position_k = torch.arange(piece.k_start, piece.k_end)[None] if position_k is None else position_k
    span_q = _cut(mask.span_q, row, piece.q_start, piece.q_end)
    span_k = _cut(mask.span_k, row, piece.k_start, piece.k_end)
    return Mask(mask.causal, window, position_q, position_k, span_q=span_q, span_k=span_k)


def _cut(tensor: Int[Tensor, "rows length"] | None, row: int, start: int, end: int) -> Int[Tensor, "1 cut"] | None:
    return None if tensor is None else tensor[min(row, tensor.shape[0] - 1)][None, start:end]


def _count_from_the_same_start(
    position_q: Int[Tensor, "1 q_len"] | None, position_k: Int[Tensor, "1 k_len"] | None, piece: _Piece
) -> bool:
    """Return whether queries and keys both count by one from the same start, as the default positions do."""
    starts = []
    for position, start in ((position_q, piece.q_start), (position_k, piece.k_start)):
        if position is not None:
            if bool((position.diff() != 1).any()):
                return False
            start = int(position[0, 0])
        starts.append(start)
    return starts[0] == starts[1]
