"""DeepSeek-V3's router: sigmoid scores, a bias that balances the load, and groups of experts (arXiv:2412.19437)."""

import torch
from jaxtyping import Float
from torch import Tensor

from lessons.lesson_07_recipes.model.experts import Router, Routing

GROUP_SCORES = 2
"""How many of its largest scores a group of experts is judged by."""


class SigmoidRouter(Router):
    """Choose experts by score plus bias, and weight them by the score alone (arXiv:2412.19437, eq. 13–16).

    A score is the sigmoid of a logit. The bias is no parameter: `experts_balance.update_biases` changes it after each
    step. It decides which experts are chosen and does not enter their weights, so it has no gradient.

    Experts lie in equal groups, and a token chooses from its best groups only. A group is as good as the sum of its two
    largest biased scores (section 2.1.2, node-limited routing: a group is one machine).

    groups             number of groups; 1 lets every token choose from all experts
    groups_per_token   number of groups that a token chooses from
    normalize_weights  divide the weights of a token by their sum
    scale              factor of all weights

    Raises ValueError when the experts do not divide into groups of at least two, or the groups that a token chooses
    from hold too few experts.
    """

    bias: Tensor

    def __init__(
        self,
        width: int,
        experts: int,
        chosen: int,
        *,
        groups: int = 1,
        groups_per_token: int = 1,
        normalize_weights: bool = True,
        scale: float = 1.0,
    ):
        super().__init__(width, experts, chosen)
        check_groups(experts, chosen, groups, groups_per_token)
        self.groups, self.groups_per_token = groups, groups_per_token
        self.normalize_weights, self.scale = normalize_weights, scale
        self.register_buffer("bias", torch.zeros(experts))

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Routing:
        logits = self.logits(x)
        scores = logits.sigmoid()
        indices = self._among_best_groups(scores.detach() + self.bias).topk(self.chosen, dim=-1).indices
        weights = scores.gather(-1, indices)
        if self.normalize_weights:
            # The published constant; it matters only if all chosen scores underflow to 0.
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        return Routing(logits, weights * self.scale, indices)

    def _among_best_groups(
        self, biased: Float[Tensor, "batch tokens experts"]
    ) -> Float[Tensor, "batch tokens experts"]:
        """Return the biased scores, −∞ for experts outside each token's best groups."""
        grouped = biased.unflatten(-1, (self.groups, -1))
        group_scores = grouped.topk(GROUP_SCORES, dim=-1).values.sum(dim=-1)
        best = group_scores.topk(self.groups_per_token, dim=-1).indices
        excluded = torch.ones_like(group_scores, dtype=torch.bool).scatter(-1, best, False)
        return grouped.masked_fill(excluded[..., None], -torch.inf).flatten(-2)


def check_groups(experts: int, chosen: int, groups: int, groups_per_token: int) -> None:
    """Raise ValueError unless the experts divide into groups, and a token's groups hold enough of them."""
    if experts % groups or experts // groups < GROUP_SCORES:
        raise ValueError(
            f"{experts} experts do not divide into {groups} groups of at least {GROUP_SCORES} experts; a group is "
            f"judged by its {GROUP_SCORES} largest scores"
        )
    if not 1 <= groups_per_token <= groups:
        raise ValueError(f"a token can't choose from {groups_per_token} of {groups} groups; expected 1 to {groups}")
    available = experts // groups * groups_per_token
    if chosen > available:
        raise ValueError(
            f"{chosen} experts can't be chosen per token from {groups_per_token} groups with {available} experts"
        )
