"""The key–value cache: a decoder's keys and values are stored, so that a new token costs one token's computation.

Memory is allocated once. All rows of a batch write into the same slots in step, so a slot's index is its place in time.
Each slot stores the segment of its token, row by row. Rows of unequal length therefore need no special case: padding
in a shorter row is a slot of segment −1, which the mask hides from all later tokens.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from shared.attention import Mask


class LayerCache:
    """Keys and values of one layer for up to `capacity` tokens, allocated at the first write in the written dtype."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.length = 0
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def extend(
        self, keys: Float[Tensor, "batch kv_heads new head_dim"], values: Float[Tensor, "batch kv_heads new value_dim"]
    ) -> tuple[Float[Tensor, "batch kv_heads length head_dim"], Float[Tensor, "batch kv_heads length value_dim"]]:
        """Append keys and values; return all that are stored, as views."""
        if self.keys is None or self.values is None:
            self.keys, self.values = (x.new_empty(*x.shape[:2], self.capacity, x.shape[3]) for x in (keys, values))
        end = self.length + keys.shape[2]
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class KVCache:
    """The caches of all layers of a decoder, and the segments of the tokens in them.

    `cache[i]` is layer i's cache. `capacity` counts tokens, prompt and padding included.
    """

    def __init__(self, depth: int, batch: int, capacity: int, *, device: torch.device | str = "cpu"):
        self.capacity = capacity
        self.length = 0
        self.segments = torch.zeros(batch, capacity, dtype=torch.long, device=device)
        self._has_segments = False
        self._layers = [LayerCache(capacity) for _ in range(depth)]

    def __getitem__(self, layer: int) -> LayerCache:
        return self._layers[layer]

    def reserve(
        self,
        tokens: int,
        segments: Int[Tensor, "#batch tokens"] | None = None,
        *,
        spans: Int[Tensor, "#batch tokens"] | None = None,
        windowed: bool = False,
    ) -> Mask:
        """Reserve the next `tokens` slots for tokens of these segments (0 when left out); return their mask.

        spans     groups of the new tokens that attend to each other in both directions; −1 for none. A span cannot
                  continue one of earlier tokens, whose keys and values are computed already
        windowed  whether the mask states the tokens' places, from which a window measures distances: padding between
                  the tokens of a row does not count

        Raises ValueError when the cache is full.
        """
        start, end = self.length, self.length + tokens
        if end > self.capacity:
            raise ValueError(
                f"the cache has {self.capacity} slots and {start} are filled: {tokens} more tokens don't fit; "
                f"create it with capacity {end} or above"
            )
        self.length = end
        if segments is not None:
            self.segments[:, start:end] = segments
            self._has_segments = True
        segment_q = self.segments[:, start:end] if self._has_segments else None
        segment_k = self.segments[:, :end] if self._has_segments else None
        span_k = None if spans is None else F.pad(spans, (start, 0), value=-1)
        # The first tokens attend causally to one another, and a single new token attends to all earlier ones. Neither
        # needs positions, which lets a fused kernel take its fastest path.
        if start == 0:
            return Mask(causal=True, segment_q=segment_q, segment_k=segment_k, span_q=spans, span_k=span_k)
        if tokens == 1 and not windowed:
            return Mask(segment_q=segment_q, segment_k=segment_k)
        places = torch.arange(end, device=self.segments.device)[None]
        if windowed and segment_k is not None:
            places = (segment_k >= 0).long().cumsum(1) - 1
        return Mask(
            causal=True,
            position_q=places[:, start:],
            position_k=places,
            segment_q=segment_q,
            segment_k=segment_k,
            span_q=spans,
            span_k=span_k,
        )
