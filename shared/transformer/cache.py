"""The key–value cache: what a decoder has read, kept so that a new token costs one token's work.

Room is made once. All rows of a batch write into the same slots, in step; each slot remembers the position and the
segment of the token in it, row by row. So rows of unequal length need no special case: the padding in a shorter row
is a slot of segment −1, which the mask hides, and its next token's position simply goes on from its own length.
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
    """Caches of all layers of a decoder, and the positions and segments of the tokens in them.

    `cache[i]` is layer i's. `capacity` counts tokens, prompt and padding included.
    """

    def __init__(self, layers: int, batch: int, capacity: int, *, device: torch.device | str = "cpu"):
        self.capacity = capacity
        self.length = 0
        self.positions = torch.zeros(batch, capacity, dtype=torch.long, device=device)
        self.segments = torch.zeros(batch, capacity, dtype=torch.long, device=device)
        self._has_segments = False
        self._counts_from_zero = True
        self._layers = [LayerCache(capacity) for _ in range(layers)]

    def __getitem__(self, layer: int) -> LayerCache:
        return self._layers[layer]

    def place(
        self,
        tokens: int,
        positions: Int[Tensor, "#batch tokens"] | None = None,
        segments: Int[Tensor, "#batch tokens"] | None = None,
    ) -> tuple[Int[Tensor, "rows tokens"], Mask]:
        """Give the next `tokens` slots their positions and segments; say the positions, and what the tokens may see.

        Positions left out go on from the number of filled slots; segments left out are 0.
        Raises ValueError when the cache is full.
        """
        start, end = self.length, self.length + tokens
        if end > self.capacity:
            raise ValueError(
                f"the cache holds {self.capacity} tokens and {start} are filled: no room for {tokens} more; "
                f"make it with capacity {end} or above"
            )
        self._counts_from_zero &= positions is None
        self._has_segments |= segments is not None
        if positions is None:
            positions = torch.arange(start, end, device=self.positions.device)[None]
        self.positions[:, start:end] = positions
        self.segments[:, start:end] = 0 if segments is None else segments
        self.length = end
        return positions, self._mask(start, end)

    def _mask(self, start: int, end: int) -> Mask:
        """What slots start … end − 1 see of slots 0 … end − 1, said with as little as it takes."""
        if not self._has_segments and self._counts_from_zero:
            if start == 0:
                return Mask(causal=True)
            if end == start + 1:  # the newest token sees all that came before it
                return Mask()
        segments = {"segment_q": self.segments[:, start:end], "segment_k": self.segments[:, :end]}
        return Mask(
            causal=True,
            position_q=self.positions[:, start:end],
            position_k=self.positions[:, :end],
            **(segments if self._has_segments else {}),
        )
