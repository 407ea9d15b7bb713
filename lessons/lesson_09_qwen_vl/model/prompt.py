"""A prompt of text, images and videos as the language model's input: embeddings, three ids per token, deep features.

Generation counts places: a row's tokens are 0, 1, 2, … whatever they are. `Prompt` translates places into M-RoPE ids. A
token after the prompt has three equal ids, which count on from the largest id of the prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Prompt:
    """A batch of prompts, padded at the end.

    embeddings  input vectors of all tokens
    ids         time, row and column id of each token
    lengths     number of tokens of each row, without padding
    deep        visual features for the first layers of the language model, zero at text tokens
    """

    embeddings: Float[Tensor, "batch tokens width"]
    ids: Int[Tensor, "batch tokens 3"]
    lengths: Int[Tensor, "batch"]
    deep: Float[Tensor, "layers batch tokens width"]

    def ids_at(self, places: Int[Tensor, "#batch new"]) -> Int[Tensor, "batch new 3"]:
        """Return the ids of the tokens at some places, of the prompt or after it."""
        places = places.expand(len(self.ids), -1)
        index, inside = self._index(places)
        real = torch.arange(self.ids.shape[1], device=places.device) < self.lengths[:, None]
        next_ids = torch.where(real[..., None], self.ids, -1).amax(dim=(1, 2)) + 1
        later = (next_ids - self.lengths)[:, None] + places
        prompt_ids = self.ids.gather(1, index[..., None].expand(-1, -1, 3))
        return torch.where(inside[..., None], prompt_ids, later[..., None])

    def deep_at(self, places: Int[Tensor, "#batch new"]) -> Float[Tensor, "layers batch new width"]:
        """Return the deep features of the tokens at some places; zero after the prompt."""
        places = places.expand(len(self.ids), -1)
        index, inside = self._index(places)
        layers, _, _, width = self.deep.shape
        features = self.deep.gather(2, index[None, ..., None].expand(layers, -1, -1, width))
        return torch.where(inside[..., None], features, 0)

    def _index(self, places: Int[Tensor, "batch new"]) -> tuple[Tensor, Tensor]:
        return places.clamp(max=self.ids.shape[1] - 1), places < self.lengths[:, None]

    @classmethod
    def stack(cls, prompts: Sequence["Prompt"]) -> "Prompt":
        """Return several prompts of one row each as one batch."""
        longest = max(prompt.ids.shape[1] for prompt in prompts)

        def pad(tensor: Tensor) -> Tensor:
            return F.pad(tensor, (0, 0, 0, longest - tensor.shape[-2]))

        return cls(
            torch.cat([pad(prompt.embeddings) for prompt in prompts]),
            torch.cat([pad(prompt.ids) for prompt in prompts]),
            torch.cat([prompt.lengths for prompt in prompts]),
            torch.cat([pad(prompt.deep) for prompt in prompts], dim=1),
        )
