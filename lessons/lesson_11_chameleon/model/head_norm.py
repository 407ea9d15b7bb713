"""QK-norm: LayerNorm of each head's queries and keys (arXiv:2302.05442, section 2; arXiv:2405.09818, section 2.3).

Text and images share all weights, and softmax(z) = softmax(z + c). Each modality can therefore raise its norms without
a change of the output, until the logits leave the range that 16 bits represent well. QK-norm bounds the attention
logits by construction; `logit_bounds` computes the bound.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-5
"""Added to the variance; published configs do not state it."""

HeadParameters = Float[Tensor, "heads head_dim"]


def normalize_heads(
    x: Float[Tensor, "batch heads tokens head_dim"], gain: HeadParameters, bias: HeadParameters, eps: float = EPS
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """Return LayerNorm over the dimensions of each head, with a gain and a bias per head.

    gain · (x − mean) / √(variance + eps) + bias; mean and variance are those of one token's head_dim values.
    """
    # exercise 11.4: QK-norm
    normalized = F.layer_norm(x, x.shape[-1:], eps=eps)
    return normalized * gain[:, None] + bias[:, None]
    # end exercise


class HeadNorm(nn.Module):
    """LayerNorm with parameters per head: [batch, heads, tokens, head_dim] → the same shape.

    The 34B was trained in four parts, each with gains of its own for a quarter of the heads; published files have a row
    per head. Here the parameters are stored as one vector [heads · head_dim].
    """

    def __init__(self, heads: int, head_dim: int):
        super().__init__()
        self.heads = heads
        self.weight = nn.Parameter(torch.ones(heads * head_dim))
        self.bias = nn.Parameter(torch.zeros(heads * head_dim))

    @property
    def per_head(self) -> tuple[HeadParameters, HeadParameters]:
        """The gains and the biases, with a row per head."""
        return self.weight.unflatten(0, (self.heads, -1)), self.bias.unflatten(0, (self.heads, -1))

    def forward(self, x: Float[Tensor, "batch heads tokens head_dim"]) -> Float[Tensor, "batch heads tokens head_dim"]:
        return normalize_heads(x, *self.per_head)


def logit_bounds(
    query_gain: HeadParameters,
    query_bias: HeadParameters,
    key_gain: Float[Tensor, "kv_heads head_dim"],
    key_bias: Float[Tensor, "kv_heads head_dim"],
) -> Float[Tensor, "heads"]:
    """Return for each head what its attention logits q · k / √d cannot exceed, whatever the input is.

    A normalized vector of d values has a norm of at most √d, so that ‖q‖ ≤ √d · max|gain| + ‖bias‖; the same holds for
    k. Rotary encoding does not change a norm, and q · k ≤ ‖q‖ · ‖k‖. Consecutive query heads share a key head: with 4
    query heads and 2 key heads, query heads 0 and 1 use key head 0.
    """
    # exercise 11.5: the bound of attention logits
    head_dim = query_gain.shape[1]
    query_norms = head_dim**0.5 * query_gain.abs().amax(dim=1) + query_bias.norm(dim=1)
    key_norms = head_dim**0.5 * key_gain.abs().amax(dim=1) + key_bias.norm(dim=1)
    return query_norms * key_norms.repeat_interleave(len(query_norms) // len(key_norms)) / head_dim**0.5
    # end exercise
