"""Average a next-token loss over samples of unequal lengths (arXiv:2412.05271; arXiv:2504.10479, section 2.2).

A sample with n response tokens gives each of them the weight w = 1 / n^p, and the loss is Σ w · loss / Σ w over all
response tokens of the batch. In all, a sample weighs n^(1−p):

    p = 0    token averaging: a sample weighs as much as it has tokens, so that long responses decide
    p = 1    sample averaging: all samples weigh the same, and each token of a short one weighs much
    p = 0.5  square averaging, in between: a sample weighs √n
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from shared.training.loss_sum import LossSum

TOKEN, SQUARE, SAMPLE = 0.0, 0.5, 1.0
"""The exponents p by name."""


def response_lengths(
    loss_mask: Bool[Tensor, "batch tokens"], segments: Int[Tensor, "batch tokens"]
) -> Int[Tensor, "batch tokens"]:
    """Return for each token the number of response tokens of its sample: its segment in its row.

    Padding, of segment −1, counts as one more sample. Raises ValueError for segments below −1.
    """
    if int(segments.min()) < -1:
        raise ValueError(f"a segment is {int(segments.min())}; expected −1 for padding, or 0 and up for samples")
    rows = torch.arange(len(segments), device=segments.device)[:, None]
    sample = rows * (int(segments.max()) + 2) + segments + 1
    return torch.bincount(sample[loss_mask], minlength=int(sample.max()) + 1)[sample]


def token_weights(lengths: Int[Tensor, "*shape"], exponent: float) -> Float[Tensor, "*shape"]:
    """Return the weight of each token, 1 / length^exponent; 0 for a length of 0.

    lengths   number of response tokens of each token's sample: [batch, tokens] or any other shape
    exponent  p of the module's docstring, any number of at least 0; with 0, a length of 0 has the weight 0 as well

    The result is float32 and has the shape of `lengths`, without NaN or infinity.
    """
    # exercise 10.5: weights of tokens
    return torch.where(lengths > 0, lengths.clamp(min=1).float() ** -exponent, 0.0)
    # end exercise


def averaged_loss(
    losses: Float[Tensor, "batch tokens"],
    loss_mask: Bool[Tensor, "batch tokens"],
    segments: Int[Tensor, "batch tokens"],
    exponent: float = SQUARE,
) -> LossSum:
    """Return the weighted sum of the losses and the sum of the weights; `.mean()` is the loss of the batch.

    losses     cross-entropy of each token
    loss_mask  which tokens belong to a response
    segments   the sample that each token belongs to, in packed rows; −1 is padding

    Batches that are accumulated add up as one batch does, since the weights depend on a token's own sample only.
    Raises ValueError as `response_lengths` does.
    """
    weights = torch.where(loss_mask, token_weights(response_lengths(loss_mask, segments), exponent), 0.0)
    return LossSum.of((weights * losses).sum(), weights.sum())
