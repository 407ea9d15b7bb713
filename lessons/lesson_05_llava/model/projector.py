"""From what an eye says to what a language model reads: two matrices and a GELU for every patch (arXiv:2310.03744, section 3.3)."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Projector(nn.Module):
    """[images, patches, vision width] → [images, patches, language width]: each patch by itself becomes one token.

    The first LLaVA had one matrix; with two and a GELU between them it answered better at no cost worth mentioning.
    """

    def __init__(self, vision_width: int, language_width: int, *, bias: bool = True):
        super().__init__()
        self.first = nn.Linear(vision_width, language_width, bias=bias)
        self.second = nn.Linear(language_width, language_width, bias=bias)

    def forward(
        self, features: Float[Tensor, "*images patches vision_width"]
    ) -> Float[Tensor, "*images patches language_width"]:
        return self.second(F.gelu(self.first(features)))
