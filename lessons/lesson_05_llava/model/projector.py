"""From what an eye says to what a language model reads: two matrices and a GELU for every patch (arXiv:2310.03744, section 3.3)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Projector(nn.Module):
    """[images, patches, vision width] → [images, patches, language width]: each patch by itself becomes one token.

    The first LLaVA had one matrix; with two and a GELU between them it answered better at no cost worth mentioning.

    scales   what each of the eye's states, laid side by side in `vision_width`, is multiplied by first. What goes into an
             eye's first block is several times smaller than what leaves its last ones, and what is small is learned late.
             Published projectors have none: `fold_scales` puts them into the first matrix.

    Raises ValueError when `vision_width` cannot be divided among the scales.
    """

    def __init__(self, vision_width: int, language_width: int, *, bias: bool = True, scales: Sequence[float] = (1.0,)):
        super().__init__()
        if vision_width % len(scales):
            raise ValueError(f"{len(scales)} scales for a vision width of {vision_width}: expected one for each state")
        self.first = nn.Linear(vision_width, language_width, bias=bias)
        self.second = nn.Linear(language_width, language_width, bias=bias)
        each = torch.tensor(scales).repeat_interleave(vision_width // len(scales))
        self.register_buffer("scale", each, persistent=False)

    def forward(
        self, features: Float[Tensor, "*images patches vision_width"]
    ) -> Float[Tensor, "*images patches language_width"]:
        return self.second(F.gelu(self.first(features * self.scale)))

    @torch.no_grad()
    def fold_scales(self) -> None:
        """Multiply the first matrix by the scales, which are 1 from then on: the same function, without them.

        To the bit, where the scales are powers of two.
        """
        self.first.weight *= self.scale
        self.scale.fill_(1.0)
