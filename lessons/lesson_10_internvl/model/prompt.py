"""A prompt of text and images as the language model's input: embeddings, and a position per token.

Generation counts places: a row's tokens are 0, 1, 2, … whatever they are. `Prompt` translates places into V2PE
positions. Tokens after the prompt are text, and count on in whole steps from its last position.
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
    positions   V2PE position of each token
    lengths     number of tokens of each row, without padding
    """

    embeddings: Float[Tensor, "batch tokens width"]
    positions: Float[Tensor, "batch tokens"]
    lengths: Int[Tensor, "batch"]

    def positions_at(self, places: Int[Tensor, "#batch new"]) -> Float[Tensor, "batch new"]:
        """Return the positions of the tokens at some places, of the prompt or after it."""
        last = (self.lengths - 1).clamp(min=0)[:, None]
        places = places.expand(len(self.positions), -1)
        inside = self.positions.gather(1, places.minimum(last))
        return inside + (places - last).clamp(min=0)

    @classmethod
    def stack(cls, prompts: Sequence["Prompt"]) -> "Prompt":
        """Return several prompts of one row each as one batch."""
        longest = max(prompt.positions.shape[1] for prompt in prompts)
        missing = [longest - prompt.positions.shape[1] for prompt in prompts]
        pairs = list(zip(prompts, missing, strict=True))
        return cls(
            torch.cat([F.pad(prompt.embeddings, (0, 0, 0, count)) for prompt, count in pairs]),
            torch.cat([F.pad(prompt.positions, (0, count)) for prompt, count in pairs]),
            torch.cat([prompt.lengths for prompt in prompts]),
        )
