"""Keep experts equally used: losses, the bias update without a loss, and how often each expert is chosen.

A router that favors some experts trains these more, which makes them better choices still: without a counterweight few
experts do all the work. A mask [batch, tokens] leaves padding out of every measure.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lessons.lesson_07_recipes.model.deepseek_router import SigmoidRouter
from lessons.lesson_07_recipes.model.experts import Routing

TokenMask = Bool[Tensor, "batch tokens"]

# ── Losses ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def balance_loss(
    probabilities: Float[Tensor, "tokens experts"], indices: Int[Tensor, "tokens chosen"]
) -> Float[Tensor, ""]:
    """Return n · Σᵢ fᵢ Pᵢ over n experts (arXiv:2101.03961, eq. 4–6).

    fᵢ is the number of times that expert i is chosen, per token; Pᵢ is its mean probability. Only P has a gradient.
    With k experts per token the loss is k when all experts are used alike, and n when one takes all probability.
    """
    # exercise 7.2: the load-balancing loss
    tokens, experts = probabilities.shape
    chosen = indices.flatten().bincount(minlength=experts) / tokens
    return experts * (chosen * probabilities.mean(dim=0)).sum()
    # end exercise


def load_balancing_loss(routings: Sequence[Routing], mask: TokenMask | None = None) -> Float[Tensor, ""]:
    """Return the balance loss of softmax routers, as `MixtralForCausalLM` computes it.

    The tokens of all layers count as one batch, so that one layer can make up for another's imbalance. For the loss of
    the paper, call `balance_loss` for each layer.
    """
    probabilities = [_rows(routing.logits.softmax(dim=-1), mask) for routing in routings]
    indices = [_rows(routing.indices, mask) for routing in routings]
    return balance_loss(torch.cat(probabilities), torch.cat(indices))


def router_z_loss(routings: Sequence[Routing], mask: TokenMask | None = None) -> Float[Tensor, ""]:
    """Return the mean over tokens and layers of (log Σᵢ exp(logitᵢ))² (arXiv:2202.08906, eq. 5).

    It keeps the logits small. Large logits lose precision in 16 bits, and rounding then changes the choice of experts.
    """
    return torch.cat([_rows(routing.logits, mask) for routing in routings]).logsumexp(dim=-1).square().mean()


def sequence_balance_loss(routings: Sequence[Routing], mask: TokenMask | None = None) -> Float[Tensor, ""]:
    """Return DeepSeek-V3's loss against imbalance within one sequence, mean over sequences and layers.

    Per sequence it is Σᵢ fᵢ Pᵢ (arXiv:2412.19437, eq. 17–20): fᵢ is n/k times the fraction of the tokens for which
    expert i is among the k with the highest scores, and Pᵢ its mean score, normalized to a sum of 1 per token. The loss
    is 1 when all experts are used alike. The bias that balances batches does not count.
    """
    losses = []
    for routing in routings:
        scores = routing.logits.sigmoid()
        chosen = torch.zeros_like(scores).scatter(-1, scores.topk(routing.indices.shape[-1]).indices, 1.0)
        counted = torch.ones_like(scores[..., :1]) if mask is None else mask[..., None].to(scores.dtype)
        tokens = counted.sum(dim=1)
        fractions = (chosen * counted).sum(dim=1) / tokens * (scores.shape[-1] / routing.indices.shape[-1])
        means = (scores / scores.sum(dim=-1, keepdim=True) * counted).sum(dim=1) / tokens
        losses.append((fractions * means).sum(dim=-1).mean())
    return torch.stack(losses).mean()


# ── Balancing without a loss ──────────────────────────────────────────────────────────────────────────────────────────


def updated_bias(
    bias: Float[Tensor, "experts"], loads: Int[Tensor, "experts"] | Float[Tensor, "experts"], speed: float
) -> Float[Tensor, "experts"]:
    """Return the biases after one training step: up by `speed` for underloaded experts, down for overloaded ones.

    loads  number of tokens that chose each expert; an expert is overloaded above the mean

    (arXiv:2412.19437, section 2.1.2; the rule is algorithm 1 of arXiv:2408.15664.)
    """
    # exercise 7.3: the bias update
    loads = loads.to(bias.dtype)
    return bias + speed * (loads.mean() - loads).sign()
    # end exercise


@torch.no_grad()
def update_biases(model: nn.Module, loads: Int[Tensor, "layers experts"], speed: float = 0.001) -> None:
    """Update the biases of all of the model's sigmoid routers after a training step.

    loads  as `expert_loads` counts them, added up over accumulated batches and processes
    speed  the paper's γ: 0.001 for most of the training, then 0

    Raises ValueError when the model has another number of such routers than `loads` has rows.
    """
    routers = [module for module in model.modules() if isinstance(module, SigmoidRouter)]
    if len(routers) != len(loads):
        raise ValueError(f"loads of {len(loads)} layers for {len(routers)} routers with a bias; give one row for each")
    for router, layer_loads in zip(routers, loads, strict=True):
        router.bias.copy_(updated_bias(router.bias, layer_loads, speed))


# ── Use of the experts ────────────────────────────────────────────────────────────────────────────────────────────────


def expert_loads(routings: Sequence[Routing], mask: TokenMask | None = None) -> Int[Tensor, "layers experts"]:
    """Count how many tokens choose each expert, per sparse layer."""
    experts = routings[0].logits.shape[-1]
    return torch.stack([_rows(routing.indices, mask).flatten().bincount(minlength=experts) for routing in routings])


def expert_use(loads: Int[Tensor, "layers experts"]) -> Float[Tensor, "layers experts"]:
    """Return the fraction of a layer's choices that fall on each expert, for a figure; 1/n each is balanced."""
    return loads / loads.sum(dim=-1, keepdim=True)


def max_violation(loads: Int[Tensor, "layers experts"]) -> Float[Tensor, "layers"]:
    """Return how far the most used expert of each layer lies above the mean load: 0 is balanced, n/k − 1 the most.

    (Called MaxVio in arXiv:2408.15664, section 4.)
    """
    return loads.amax(dim=-1) / loads.float().mean(dim=-1) - 1


def _rows(
    x: Float[Tensor, "batch tokens features"] | Int[Tensor, "batch tokens features"], mask: TokenMask | None
) -> Float[Tensor, "rows features"] | Int[Tensor, "rows features"]:
    """Return one row per token that counts."""
    return x.flatten(0, 1) if mask is None else x[mask]
