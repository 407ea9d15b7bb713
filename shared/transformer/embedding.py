"""Token embeddings multiplied by a constant."""

from jaxtyping import Float, Int
from torch import Tensor, nn


class ScaledEmbedding(nn.Embedding):
    """A token embedding whose vectors are multiplied by √width, as in Gemma (arXiv:1706.03762, section 3.4).

    An output layer that shares the weights uses them without the factor, and so do vectors that take the place of text,
    such as an image's. The factor is rounded to the dtype of the weights, as in the published models.
    """

    def forward(self, token_ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape width"]:
        return super().forward(token_ids) * self.weight.new_tensor(self.embedding_dim**0.5)
