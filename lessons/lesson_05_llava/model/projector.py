"""The projector: a two-layer MLP from vision features to language-model embeddings (arXiv:2310.03744, section 3.3)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Projector(nn.Module):
    """Map each vision feature to one embedding: H = W₂ · GELU(W₁ · Z).

    [images, patches, vision_width] → [images, patches, language_width]. The first LLaVA had one linear layer
    (arXiv:2304.08485, equation 1); the two-layer MLP of LLaVA-1.5 answered better at little cost.

    scales  a factor for each hidden state that is concatenated in `vision_width`. The input of the first block is
            several times smaller than the later states, and small features are learned late. Published projectors have
            no scales: `fold_scales` multiplies them into the first layer.

    Raises ValueError when `vision_width` is not divisible by the number of scales.
    """

    scale: Tensor

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
        """Multiply the scales into the first layer's weight and set them to 1; exact for powers of two."""
        self.first.weight *= self.scale
        self.scale.fill_(1.0)
