"""A sparse mixture of experts: a router chooses k of n MLPs for each token (arXiv:2401.04088, section 2.1).

The parameters grow with n, the computation per token with k. `SparseMLP` takes the place of a block's MLP. Its router
is a `Router`: Mixtral's `TopKRouter` here, DeepSeek-V3's in deepseek_router.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Routing:
    """What a router computes for every token.

    logits   one per expert, before softmax or sigmoid
    weights  the factor of each chosen expert's output
    indices  the chosen experts
    """

    logits: Float[Tensor, "batch tokens experts"]
    weights: Float[Tensor, "batch tokens chosen"]
    indices: Int[Tensor, "batch tokens chosen"]


class Router(nn.Module):
    """One linear layer without a bias from a token to a logit per expert; subclasses choose the experts.

    The logits are computed in float32 or wider: rounding would change which experts are chosen (arXiv:2101.03961,
    section 2.4).

    Raises ValueError when more experts are to be chosen than there are.
    """

    def __init__(self, width: int, experts: int, chosen: int):
        super().__init__()
        if not 1 <= chosen <= experts:
            raise ValueError(f"{chosen} of {experts} experts can't be chosen per token; expected 1 to {experts}")
        self.chosen = chosen
        self.weight = nn.Parameter(torch.randn(experts, width) * width**-0.5)

    def logits(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens experts"]:
        """Return one logit per token and expert."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        return F.linear(x.to(dtype), self.weight.to(dtype))

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Routing:
        """Choose the experts of every token."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{self.chosen} of {self.weight.shape[0]} experts"


def choose_experts(
    logits: Float[Tensor, "*batch experts"], chosen: int
) -> tuple[Float[Tensor, "*batch {chosen}"], Int[Tensor, "*batch {chosen}"]]:
    """Return the weights and indices of the experts with the largest logits, the largest first.

    The weights are the softmax over the chosen logits only and add up to 1 (arXiv:2401.04088, section 2.1).
    """
    # exercise 7.1: weights of the chosen experts
    largest, indices = logits.topk(chosen, dim=-1)
    return largest.softmax(dim=-1), indices
    # end exercise


class TopKRouter(Router):
    """Mixtral's router: softmax over the k largest logits."""

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Routing:
        logits = self.logits(x)
        return Routing(logits, *choose_experts(logits, self.chosen))


class Experts(nn.Module):
    """n SwiGLU MLPs of one size; their weights are stacked along a first axis of n."""

    def __init__(self, experts: int, width: int, mlp_dim: int):
        super().__init__()
        self.gate = nn.Parameter(torch.randn(experts, mlp_dim, width) * width**-0.5)
        self.up = nn.Parameter(torch.randn(experts, mlp_dim, width) * width**-0.5)
        self.down = nn.Parameter(torch.randn(experts, width, mlp_dim) * mlp_dim**-0.5)

    def forward(
        self,
        x: Float[Tensor, "tokens width"],
        weights: Float[Tensor, "tokens chosen"],
        indices: Int[Tensor, "tokens chosen"],
    ) -> Float[Tensor, "tokens width"]:
        """Return each token's weighted sum of the outputs of its experts; no other expert is computed."""
        # Every (token, choice) pair is one row; sorted by expert, the rows of one expert are neighbors.
        order = indices.flatten().argsort(stable=True)
        tokens = order // indices.shape[1]
        counts = indices.flatten().bincount(minlength=len(self.gate)).tolist()
        outputs = [
            F.linear(F.silu(F.linear(rows, self.gate[expert])) * F.linear(rows, self.up[expert]), self.down[expert])
            for expert, rows in enumerate(x[tokens].split(counts))
            if len(rows)
        ]
        weighted = torch.cat(outputs) * weights.flatten()[order, None].to(x.dtype)
        return torch.zeros_like(x).index_add(0, tokens, weighted)

    def extra_repr(self) -> str:
        experts, mlp_dim, width = self.gate.shape
        return f"{experts} experts, width={width}, mlp_dim={mlp_dim}"


class SparseMLP(nn.Module):
    """A router and its experts in place of a block's MLP.

    shared  an MLP that every token passes through as well (DeepSeekMoE's shared experts, arXiv:2401.06066, section 3.2)
    """

    def __init__(self, router: Router, experts: Experts, shared: nn.Module | None = None):
        super().__init__()
        self.router, self.experts, self.shared = router, experts, shared

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        routing = self.router(x)
        rows = self.experts(x.flatten(0, 1), routing.weights.flatten(0, 1), routing.indices.flatten(0, 1))
        update = rows.reshape(x.shape)
        return update if self.shared is None else update + self.shared(x)


@contextmanager
def recorded_routings(model: nn.Module) -> Iterator[list[Routing]]:
    """Record what the model's routers compute: each forward pass inside appends one `Routing` per sparse layer.

        with recorded_routings(model) as routings:
            logits = model(token_ids)
        loss = cross_entropy + 0.01 * load_balancing_loss(routings)

    The logits keep their gradients.
    """
    routings: list[Routing] = []
    routers = [module for module in model.modules() if isinstance(module, Router)]
    hooks = [router.register_forward_hook(lambda _, inputs, routing: routings.append(routing)) for router in routers]
    try:
        yield routings
    finally:
        for hook in hooks:
            hook.remove()
