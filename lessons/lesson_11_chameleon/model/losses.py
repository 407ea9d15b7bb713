"""Next-token cross-entropy over text and images together, and the z-loss (arXiv:2405.09818, section 2.3)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from lessons.lesson_00_foundations.decoder.model import has_previous_token
from shared.training.loss_sum import LossSum

Z_WEIGHT = 1e-5
"""The published weight of the z-loss."""


def z_losses(logits: Float[Tensor, "*shape vocab"]) -> Float[Tensor, "*shape"]:
    """Return (log Z)² of each token, where Z = Σ exp(logit), in float32 or wider.

    Cross-entropy does not change when a constant is added to all logits; this loss pulls log Z to 0.
    """
    # exercise 11.7: the z-loss
    return torch.logsumexp(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1).square()
    # end exercise


def mixed_modal_loss(
    logits: Float[Tensor, "batch tokens vocab"],
    token_ids: Int[Tensor, "batch tokens"],
    segments: Int[Tensor, "batch tokens"],
    *,
    loss_mask: Bool[Tensor, "batch tokens"] | None = None,
    z_weight: float = Z_WEIGHT,
) -> tuple[LossSum, dict[str, LossSum]]:
    """Return the sum over predicted tokens of cross-entropy (nats) + z_weight · (log Z)², and each of the two.

    Every token that follows another one of its document is predicted, whether it belongs to text or to an image.

    segments   the document of each token, in packed rows; −1 is padding
    loss_mask  which tokens are predicted: in fine-tuning those of answers (section 3.2); None for all
    z_weight   0 for no z-loss

    Raises ValueError for a z_weight that is negative or not finite.
    """
    if not 0 <= z_weight < float("inf"):
        raise ValueError(f"z_weight is {z_weight}; expected 0 for no z-loss, or a small positive number as {Z_WEIGHT}")
    predicted = has_previous_token(segments)
    if loss_mask is not None:
        predicted = predicted & loss_mask[:, 1:]
    counted, targets = logits[:, :-1][predicted], token_ids[:, 1:][predicted]
    cross_entropy = F.cross_entropy(counted.float(), targets, reduction="sum")
    z_loss = z_losses(counted).sum()
    parts = {"cross_entropy": LossSum.of(cross_entropy, len(targets)), "z_loss": LossSum.of(z_loss, len(targets))}
    return LossSum.of(cross_entropy + z_weight * z_loss, len(targets)), parts
