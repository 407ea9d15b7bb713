"""The config of a DeepSeek-V3 language model, and its published `config.json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lessons.lesson_07_recipes.model.deepseek_router import check_groups
from lessons.lesson_07_recipes.model.mixtral_config import require_plain_blocks
from shared.errors import CourseError
from shared.pretrained import (
    Derived,
    Fixed,
    Row,
    Setting,
    Unused,
    build_config,
    read_part,
    read_settings,
    require_model_type,
    require_same,
    write_settings,
)
from shared.pretrained.rotary_settings import read_rotary, write_rotary
from shared.pretrained.setting_values import integer, number, optional
from shared.transformer import DecoderConfig, YarnScaling, yarn_magnitude


@dataclass(frozen=True)
class DeepSeekConfig(DecoderConfig):
    """Describe a DeepSeek-V3 decoder; the defaults are the published model's (arXiv:2412.19437, section 4.2).

    mlp_dim            inner width of the MLP in dense layers
    kv_heads           equal to `heads`: every head has keys and values of its own, expanded from the latent
    head_dim           width of a head's queries and keys without positions (the paper's d_h)
    rotary_dim         width of a head's queries and keys that are rotated (d_h^R)
    value_dim          width of a head's values
    latent_dim         width of the latent that keys and values are expanded from (d_c)
    query_latent_dim   width of the latent that queries are expanded from (d_c'); None for queries without one
    attention_bias     biases on the layers of the attention that read from or write to the residual stream
    interleaved        rotary pairs are elements 2i and 2i + 1, not i and i + rotary_dim/2

    dense_layers       number of layers, from the first, with an MLP in place of experts
    experts            number of routed experts (n)
    experts_per_token  number of routed experts per token (k)
    shared_experts     number of experts that every token passes through, computed as one MLP
    expert_dim         inner width of one expert
    groups, groups_per_token, normalize_weights, routing_scale
                       as `SigmoidRouter` describes them

    Raises ValueError when sizes exclude each other.
    """

    norm_eps: float = 1e-6
    rotary_base: float = 10_000.0
    max_positions: int = 4096
    head_dim: int | None = 128
    rotary_dim: int = 64
    value_dim: int = 128
    latent_dim: int = 512
    query_latent_dim: int | None = 1536
    attention_bias: bool = False
    interleaved: bool = True
    dense_layers: int = 3
    experts: int = 256
    experts_per_token: int = 8
    shared_experts: int = 1
    expert_dim: int = 2048
    groups: int = 8
    groups_per_token: int = 4
    normalize_weights: bool = True
    routing_scale: float = 2.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_plain_blocks(self)
        if self.kv_heads != self.heads:
            raise ValueError(f"{self.kv_heads} key heads for {self.heads} query heads; expected equally many")
        if self.head_dim is None:
            raise ValueError("head_dim is None; latent attention has no width that follows from the others")
        if self.rotary_dim % 2:
            raise ValueError(f"rotary_dim (qk_rope_head_dim) is {self.rotary_dim}; rotary positions rotate pairs")
        check_groups(self.experts, self.experts_per_token, self.groups, self.groups_per_token)

    @property
    def rotary_width(self) -> int:
        """The part of an attention head that rotary positions rotate."""
        return self.rotary_dim

    @property
    def rotary_magnitude(self) -> float:
        """The factor of rotated elements of queries and keys: YaRN's, else 1."""
        return 1.0 if self.rotary_scaling is None else self.rotary_scaling.magnitude

    @property
    def score_scale(self) -> float:
        """The factor of q · k: 1/√(head_dim + rotary_dim), with YaRN times the square of a magnitude of all elements.

        DeepSeek-V3's `mscale` and `mscale_all_dim` are equal. The rotated elements alone then have a magnitude of 1.
        """
        scale, scaling = (self.width_per_head + self.rotary_dim) ** -0.5, self.rotary_scaling
        if isinstance(scaling, YarnScaling) and scaling.mscale_all_dim:
            scale *= yarn_magnitude(scaling.factor, scaling.mscale_all_dim) ** 2
        return scale


LOW_RANK_NORM_EPS = 1e-6
"""The eps of the norms of the latents, whatever `norm_eps` is."""

SETTINGS: list[Row] = [
    Setting("vocab_size", "vocab_size", 129_280),
    Setting("hidden_size", "width", 7168),
    Setting("num_hidden_layers", "depth", 61),
    Setting("num_attention_heads", "heads", 128),
    Setting("intermediate_size", "mlp_dim", 18_432),
    Setting("max_position_embeddings", "max_positions", 4096),
    Setting("rms_norm_eps", "norm_eps", 1e-6),
    Setting("tie_word_embeddings", "tied", False),
    Fixed("hidden_act", "silu"),
    # Attention
    Setting("qk_nope_head_dim", "head_dim", 128),
    Setting("qk_rope_head_dim", "rotary_dim", 64),
    Setting("v_head_dim", "value_dim", 128),
    Setting("kv_lora_rank", "latent_dim", 512),
    Setting("q_lora_rank", "query_latent_dim", 1536, accept=optional(integer())),
    Setting("attention_bias", "attention_bias", False),
    Setting("rope_interleave", "interleaved", True),
    # Files of version 5 also state these three. The published class has one key head per query head.
    Derived("num_key_value_heads", lambda fields: fields["heads"]),
    Derived("head_dim", lambda fields: fields["rotary_dim"]),
    Derived("qk_head_dim", lambda fields: fields["head_dim"] + fields["rotary_dim"]),
    # Experts
    Setting("first_k_dense_replace", "dense_layers", 3, accept=integer(0)),
    Setting("n_routed_experts", "experts", 256, also=("num_local_experts",)),
    Setting("num_experts_per_tok", "experts_per_token", 8),
    Setting("n_shared_experts", "shared_experts", 1),
    Setting("moe_intermediate_size", "expert_dim", 2048),
    Setting("n_group", "groups", 8),
    Setting("topk_group", "groups_per_token", 4),
    Setting("norm_topk_prob", "normalize_weights", True),
    Setting("routed_scaling_factor", "routing_scale", 2.5, accept=number()),
    # The published class ignores these three of the original files, whose own code computes another model for others.
    Fixed("scoring_func", "sigmoid"),
    Fixed("topk_method", "noaux_tc"),
    Fixed("moe_layer_freq", 1),
    # Layers for multi-token prediction are not read, and router logits are returned on request only.
    Unused("num_mtp_layers"),
    Unused("num_nextn_predict_layers"),
    Unused("output_router_logits"),
]


def parse_config(config: Mapping[str, Any], folder: Path | str) -> DeepSeekConfig:
    """Convert published settings to our config.

    Raises CourseError, naming the folder, when the settings describe another kind of model.
    """
    require_model_type(config, folder, "deepseek_v3")
    values = read_settings(SETTINGS, config)
    rotary = read_rotary(config, values["max_positions"])
    if not isinstance(rotary["rotary_scaling"], YarnScaling | None):
        for name in ("rope_scaling", "rope_parameters"):
            if (read_part(config, name) or {}).get("mscale_all_dim"):
                raise CourseError(f"{name} has mscale_all_dim, which is supported with the rotary scaling 'yarn' only")
    return build_config(DeepSeekConfig, **values, kv_heads=values["heads"], **rotary)


def write_config(config: DeepSeekConfig) -> dict[str, Any]:
    """Convert our config to the settings of `DeepseekV3ForCausalLM`.

    Raises CourseError for a decoder that the published class does not describe.
    """
    rotary = write_rotary(config)
    settings = {
        "model_type": "deepseek_v3",
        "architectures": ["DeepseekV3ForCausalLM"],
        **write_settings(SETTINGS, asdict(config)),
        "num_key_value_heads": config.kv_heads,
        "num_nextn_predict_layers": 0,
        "rope_theta": rotary.pop("rope_theta"),
        "rope_scaling": rotary if config.rotary_scaling else None,
    }
    require_same(config, parse_config(settings, "the written config.json"))
    return settings
