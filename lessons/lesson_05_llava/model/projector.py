"""The projector: a two-layer MLP from vision features to language-model embeddings (arXiv:2310.03744, section 3.3)."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Projector(nn.Module):
    """Map each vision feature to one embedding: H = W₂ · GELU(W₁ · Z).

    [images, patches, vision_width] → [images, patches, language_width]. The first LLaVA had one linear layer
    (arXiv:2304.08485, equation 1); the two-layer MLP of LLaVA-1.5 answered better at little cost.
    """

    def __init__(self, vision_width: int, language_width: int, *, bias: bool = True):
        super().__init__()
        self.first = nn.Linear(vision_width, language_width, bias=bias)
        self.second = nn.Linear(language_width, language_width, bias=bias)

    def forward(
        self, features: Float[Tensor, "*images patches vision_width"]
    ) -> Float[Tensor, "*images patches language_width"]:
        return self.second(F.gelu(self.first(features)))
