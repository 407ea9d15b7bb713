"""The key–value cache: what a decoder has read, kept so that a new token costs one token's work.

Room is made once. All rows of a batch write into the same slots, in step, so a slot's number tells its place in time;
each slot remembers the segment of the token in it, row by row. So rows of unequal length need no special case: the
padding in a shorter row is a slot of segment −1, which the mask hides from all that comes after.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from shared.attention import Mask


class LayerCache:
    """Keys and values of one layer, in room for `capacity` tokens, made at the first write in the type written."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.length = 0
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def extend(
        self, keys: Float[Tensor, "batch kv_heads new head_dim"], values: Float[Tensor, "batch kv_heads new value_dim"]
    ) -> tuple[Float[Tensor, "batch kv_heads length head_dim"], Float[Tensor, "batch kv_heads length value_dim"]]:
        """Write the new keys and values behind the old ones; give all of them, as views."""
        if self.keys is None:
            self.keys, self.values = (x.new_empty(*x.shape[:2], self.capacity, x.shape[3]) for x in (keys, values))
        end = self.length + keys.shape[2]
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class KVCache:
    """Caches of all layers of a decoder, and the segments of the tokens in them.

    `cache[i]` is layer i's. `capacity` counts tokens, prompt and padding included.
    """

    def __init__(self, layers: int, batch: int, capacity: int, *, device: torch.device | str = "cpu"):
        self.capacity = capacity
        self.length = 0
        self.segments = torch.zeros(batch, capacity, dtype=torch.long, device=device)
        self._has_segments = False
        self._layers = [LayerCache(capacity) for _ in range(layers)]

    def __getitem__(self, layer: int) -> LayerCache:
        return self._layers[layer]

    def place(self, tokens: int, segments: Int[Tensor, "#batch tokens"] | None = None) -> Mask:
        """Give the next `tokens` slots to new tokens of these segments (0 when left out); say what they may see.

        Raises ValueError when the cache is full.
        """
        start, end = self.length, self.length + tokens
        if end > self.capacity:
            raise ValueError(
                f"the cache holds {self.capacity} tokens and {start} are filled: no room for {tokens} more; "
                f"make it with capacity {end} or above"
            )
        self.length = end
        if segments is not None:
            self.segments[:, start:end] = segments
            self._has_segments = True
        seen = {}
        if self._has_segments:
            seen = {"segment_q": self.segments[:, start:end], "segment_k": self.segments[:, :end]}
        # The first tokens see no further than themselves, and the one newest token sees all that came before it:
        # both can be said without positions, which a fused kernel likes best.
        if start == 0:
            return Mask(causal=True, **seen)
        if tokens == 1:
            return Mask(**seen)
        return Mask(causal=True, position_q=torch.arange(start, end, device=self.segments.device)[None], **seen)
