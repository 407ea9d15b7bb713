"""Small decoders of equal active size: dense, sparse, with latent attention, and both; for training side by side."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lessons.lesson_00_foundations.decoder.model import LanguageModel, next_token_loss
from lessons.lesson_00_foundations.decoder.model.toy_decoder import ROTARY_BASE
from lessons.lesson_07_recipes.model.deepseek import DeepSeekV3
from lessons.lesson_07_recipes.model.deepseek_config import DeepSeekConfig
from lessons.lesson_07_recipes.model.experts import SparseMLP, recorded_routings
from lessons.lesson_07_recipes.model.experts_balance import expert_loads, load_balancing_loss, sequence_balance_loss
from lessons.lesson_07_recipes.model.mixtral import Mixtral
from lessons.lesson_07_recipes.model.mixtral_config import MixtralConfig
from shared.transformer import DecoderConfig

# ── Counting ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ParameterCounts:
    """How many parameters a model has, and how many take part in the computation of one token."""

    total: int
    active: int


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Count a model's parameters; of n experts only the k that a token chooses are active.

    Embeddings and the output layer count as active; tied ones count once.
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    idle = 0
    for module in model.modules():
        if isinstance(module, SparseMLP):
            experts = len(module.experts.gate)
            size = sum(parameter.numel() for parameter in module.experts.parameters())
            idle += size // experts * (experts - module.router.chosen)
    return ParameterCounts(total, total - idle)


# ── Arms ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ArmSizes:
    """Describe all arms: the dense one, which sets the number of active parameters, and what the others change.

    mlp_dim      inner width of the MLP of the arm "dense"; that of all other arms follows
    kv_heads     key heads of the arm "grouped"
    head_dim, rotary_dim, value_dim, latent_dim
                 sizes of latent attention, as in `DeepSeekConfig`; queries have no latent
    """

    vocab_size: int
    width: int = 64
    depth: int = 3
    heads: int = 4
    mlp_dim: int = 160
    kv_heads: int = 2
    experts: int = 8
    experts_per_token: int = 2
    head_dim: int = 16
    rotary_dim: int = 8
    value_dim: int = 16
    latent_dim: int = 16

    def decoder(self, mlp_dim: int, kv_heads: int | None = None) -> DecoderConfig:
        """Return the config of a dense decoder."""
        sizes = (self.vocab_size, self.width, self.depth, self.heads, kv_heads or self.heads, mlp_dim)
        return DecoderConfig(*sizes, rotary_base=ROTARY_BASE, tied=True)

    def mixtral(self, mlp_dim: int) -> MixtralConfig:
        """Return the config of a Mixtral with experts of this inner width."""
        sizes = (self.vocab_size, self.width, self.depth, self.heads, self.heads, mlp_dim)
        chosen = self.experts_per_token
        return MixtralConfig(*sizes, rotary_base=ROTARY_BASE, tied=True, experts=self.experts, experts_per_token=chosen)

    def latent(self, mlp_dim: int) -> DeepSeekConfig:
        """Return the config of a decoder with latent attention and dense MLPs."""
        return DeepSeekConfig(
            *(self.vocab_size, self.width, self.depth, self.heads, self.heads, mlp_dim),
            norm_eps=1e-5,
            rotary_base=ROTARY_BASE,
            tied=True,
            head_dim=self.head_dim,
            rotary_dim=self.rotary_dim,
            value_dim=self.value_dim,
            latent_dim=self.latent_dim,
            query_latent_dim=None,
            dense_layers=self.depth,
        )

    def deepseek(self, expert_dim: int) -> DeepSeekConfig:
        """Return the config of a small DeepSeek-V3: latent attention, one shared expert beside the routed ones.

        Every layer has experts; the weights of a token's routed experts add up to 1.
        """
        return replace(
            self.latent(expert_dim),
            dense_layers=0,
            experts=self.experts,
            experts_per_token=self.experts_per_token,
            shared_experts=1,
            expert_dim=expert_dim,
            groups=1,
            groups_per_token=1,
            routing_scale=1.0,
        )


ARMS: dict[str, Callable[[ArmSizes, int], LanguageModel]] = {
    "dense": lambda sizes, mlp_dim: LanguageModel(sizes.decoder(mlp_dim)),
    "grouped": lambda sizes, mlp_dim: LanguageModel(sizes.decoder(mlp_dim, sizes.kv_heads)),
    "sparse": lambda sizes, mlp_dim: Mixtral(sizes.mixtral(mlp_dim)),
    "latent": lambda sizes, mlp_dim: DeepSeekV3(sizes.latent(mlp_dim)),
    "sparse latent": lambda sizes, mlp_dim: DeepSeekV3(sizes.deepseek(mlp_dim)),
    "large": lambda sizes, mlp_dim: LanguageModel(sizes.decoder(mlp_dim)),
}
"""The arms by name: sizes and the inner width of an MLP, or of an expert, → an untrained model."""


def build_arm(name: str, sizes: ArmSizes) -> LanguageModel:
    """Build an untrained decoder with as many active parameters as the arm "dense", to within one unit of its MLPs.

    "dense" has multi-head attention, "grouped" grouped queries, "latent" latent attention. "sparse" is a Mixtral,
    "sparse latent" a DeepSeek-V3. "large" is dense, with as many parameters as "sparse" has in total.

    Raises ValueError for another name, and when the other parts of an arm alone have more parameters than that.
    """
    if name not in ARMS:
        raise ValueError(f"no arm is called {name!r}; expected one of {', '.join(ARMS)}")
    with torch.device("meta"):
        target = count_parameters(ARMS["dense"](sizes, sizes.mlp_dim)).active
        if name == "large":
            target = count_parameters(build_arm("sparse", sizes)).total
        one, two = (count_parameters(ARMS[name](sizes, mlp_dim)).active for mlp_dim in (1, 2))
    # Active parameters grow by `two − one` per unit of the inner width.
    mlp_dim = 1 + (target - one) // (two - one)
    if mlp_dim < 1:
        raise ValueError(f"the arm {name} has {one:,} parameters without its MLPs, above the {target:,} of dense")
    return ARMS[name](sizes, mlp_dim)


# ── Training ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def loss_and_loads(
    model: LanguageModel,
    token_ids: Int[Tensor, "batch tokens"],
    segments: Int[Tensor, "batch tokens"],
    *,
    balance_weight: float | None = None,
) -> tuple[Float[Tensor, ""], Int[Tensor, "layers experts"] | None]:
    """Return the loss of one batch and, with experts, how many tokens chose each.

    The loss is the cross-entropy of the next token, plus the balance loss of the model's own kind: over the batch for a
    Mixtral, per sequence for a DeepSeek-V3. Pass the loads to `experts_balance.update_biases` after the step.

    balance_weight  weight of the balance loss; by default a Mixtral's own, and 0.0001 (arXiv:2412.19437, section 4.2)
    """
    with recorded_routings(model) as routings:
        loss = next_token_loss(model(token_ids, segments=segments), token_ids, segments)
    if not routings:
        return loss, None
    mask = segments >= 0
    if isinstance(model, Mixtral):
        weight = model.config.balance_weight if balance_weight is None else balance_weight
        loss = loss + weight * load_balancing_loss(routings, mask)
    else:
        loss = loss + (1e-4 if balance_weight is None else balance_weight) * sequence_balance_loss(routings, mask)
    return loss, expert_loads(routings, mask)
