"""ViR, the visual resolution router: 256 or 64 visual tokens per tile (arXiv:2508.18265; arXiv:2510.12793).

A second projector compresses a tile's patches four times more. Training has two stages:

1. Consistency (ViCO): with each tile at a random resolution, the model learns the next-token distributions that the
   frozen model has at full resolution. The loss is their KL divergence.
2. Routing: the rest is frozen, and a small classifier learns from each tile's features whether compression changes the
   answer. Its target compares the consistency loss at low with that at full resolution: the tile needs all its tokens
   when the ratio is at or above a threshold τ, a percentile of recent ratios.
"""

from collections import deque

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


class ResolutionRouter(nn.Module):
    """Score each tile by its mean feature: LayerNorm and a two-layer MLP, [tiles, R, C, width] → [tiles].

    The score is the logit of the probability that the tile needs all its tokens.
    """

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, 1)

    def forward(self, grid: Float[Tensor, "tiles rows columns width"]) -> Float[Tensor, "tiles"]:
        return self.second(F.gelu(self.first(self.norm(grid.mean(dim=(1, 2)))))).squeeze(-1)


# ── Stage 1: consistency ──────────────────────────────────────────────────────────────────────────────────────────────


def consistency_losses(
    logits: Float[Tensor, "batch tokens vocab"],
    full_logits: Float[Tensor, "batch tokens vocab"],
    loss_mask: Bool[Tensor, "batch tokens"],
) -> Float[Tensor, "batch"]:
    """Return each row's mean KL(full ‖ compressed) of the next-token distributions over its response tokens, in nats.

    logits       of the model with compressed tiles
    full_logits  of the frozen model at full resolution, at the same tokens; they get no gradient
    loss_mask    which logits predict a token of the response; the others do not count

    Both logits are converted with `.float()` first, so that half precision is computed in single. The distributions
    are those of the softmax over the last axis, and large logits give a finite loss.

    Raises ValueError for a row without response tokens.
    """
    if not loss_mask.any(dim=1).all():
        raise ValueError("a row has no response token, so that its consistency loss is undefined; check the loss mask")
    # exercise 10.8: the consistency loss
    log_p, log_q = F.log_softmax(full_logits.detach().float(), dim=-1), F.log_softmax(logits.float(), dim=-1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=-1)
    return torch.where(loss_mask, divergence, 0.0).sum(dim=1) / loss_mask.sum(dim=1)
    # end exercise


# ── Stage 2: routing ──────────────────────────────────────────────────────────────────────────────────────────────────


class RatioThreshold:
    """Hold recent loss ratios, and return a percentile of them as the threshold τ.

    percentile  from 0 to 100: about this part of the tiles gets the target "compress"
    window      number of ratios

    Raises ValueError for a percentile outside 0 to 100 and for an empty window.
    """

    def __init__(self, percentile: float = 50.0, window: int = 1024):
        if not 0 <= percentile <= 100 or window < 1:
            raise ValueError(
                f"percentile is {percentile} and window is {window}; expected a number from 0 to 100, and at least 1"
            )
        self.percentile = percentile
        self.ratios: deque[float] = deque(maxlen=window)

    def update(self, ratios: Float[Tensor, "tiles"]) -> float:
        """Add the ratios of a batch, and return the threshold. Raises ValueError before the first ratio."""
        self.ratios.extend(ratios.tolist())
        if not self.ratios:
            raise ValueError("no loss ratio was given; the threshold is a percentile of at least one")
        return torch.tensor(list(self.ratios), dtype=torch.float64).quantile(self.percentile / 100).item()


def router_targets(
    coarse_losses: Float[Tensor, "tiles"], full_losses: Float[Tensor, "tiles"], threshold: float, *, eps: float = 1e-6
) -> tuple[Float[Tensor, "tiles"], Float[Tensor, "tiles"]]:
    """Return the target of each tile, 1 when it needs all its tokens and 0 when it is compressed, and its loss ratio.

    coarse_losses, full_losses  consistency losses with the tile at low and at full resolution
    threshold                   τ; a ratio at or above it gives the target 1
    eps                         added to both losses, since the loss at full resolution may be 0
    """
    # exercise 10.9: targets of the router
    ratios = (coarse_losses.detach() + eps) / (full_losses.detach() + eps)
    return (ratios >= threshold).to(ratios.dtype), ratios
    # end exercise


def router_loss(logits: Float[Tensor, "tiles"], targets: Float[Tensor, "tiles"]) -> Float[Tensor, ""]:
    """Return the mean binary cross-entropy of the router's logits, in nats."""
    return F.binary_cross_entropy_with_logits(logits, targets)
