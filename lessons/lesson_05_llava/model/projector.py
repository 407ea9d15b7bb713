"""From what an eye says to what a language model reads: two matrices and a GELU for every patch (arXiv:2310.03744, section 3.3)."""

from einops import rearrange
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


class MergingProjector(nn.Module):
    """Squares of neighbouring patches, laid side by side, become one token each (arXiv:2310.09478, section 2.1).

    With a `side` of 2 an image takes a quarter of the tokens, at the cost of a wider first matrix.
    """

    def __init__(self, vision_width: int, language_width: int, *, side: int = 2):
        super().__init__()
        self.side = side
        self.project = Projector(side**2 * vision_width, language_width)

    def forward(
        self, features: Float[Tensor, "images patches vision_width"]
    ) -> Float[Tensor, "images merged language_width"]:
        """Raises ValueError when the patches are no square, or the square does not divide into smaller ones."""
        rows = round(features.shape[1] ** 0.5)
        if rows**2 != features.shape[1] or rows % self.side:
            raise ValueError(
                f"{features.shape[1]} patches do not divide into squares of {self.side} × {self.side}; "
                "leave the class token out, and take a grid whose side is a multiple"
            )
        squares = rearrange(features, "i (r a c b) w -> i (r c) (a b w)", r=rows // self.side, a=self.side, b=self.side)
        return self.project(squares)
