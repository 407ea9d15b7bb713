"""The config of a Mixtral language model, and its published `config.json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from shared.errors import CourseError
from shared.pretrained import (
    Fixed,
    Row,
    Setting,
    Unused,
    build_config,
    read_settings,
    require_model_type,
    require_same,
    write_settings,
)
from shared.pretrained.rotary_settings import read_rotary, write_rotary
from shared.pretrained.setting_values import integer, number, optional
from shared.transformer import DecoderConfig


@dataclass(frozen=True)
class MixtralConfig(DecoderConfig):
    """Describe a Mixtral decoder: a Llama with sparse experts in every block (arXiv:2401.04088, table 1).

    mlp_dim            inner width of one expert
    experts            number of experts (n)
    experts_per_token  number of experts per token (k)
    balance_weight     weight of the load-balancing loss in training

    Raises ValueError when k is not in 1 … n, and for a choice that the blocks do not implement.
    """

    rotary_base: float = 1_000_000.0
    experts: int = 8
    experts_per_token: int = 2
    balance_weight: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        require_plain_blocks(self)
        if not 1 <= self.experts_per_token <= self.experts:
            raise ValueError(
                f"experts_per_token (num_experts_per_tok) is {self.experts_per_token}; expected 1 to {self.experts}, "
                "the number of experts (num_local_experts)"
            )


PLAIN = ("qkv_bias", "bias", "positions", "norm", "norm_offset", "activation", "post_norms", "query_scalar")
"""The fields of `DecoderConfig` that describe blocks of other models, together with `attention_softcap`."""


def require_plain_blocks(config: DecoderConfig) -> None:
    """Raise ValueError for choices that blocks with experts do not implement: they have Llama's norms and no biases."""
    defaults = {field.name: field.default for field in fields(DecoderConfig)}
    for name in (*PLAIN, "attention_softcap"):
        if getattr(config, name) != defaults[name]:
            raise ValueError(
                f"{name} is {getattr(config, name)!r}; blocks with experts support {defaults[name]!r} only"
            )


DEFAULT_ROTARY_BASE = 1_000_000.0
"""The base that the published class assumes when a config has none."""

SETTINGS: list[Row] = [
    Setting("vocab_size", "vocab_size", 32_000),
    Setting("hidden_size", "width", 4096),
    Setting("num_hidden_layers", "depth", 32),
    Setting("num_attention_heads", "heads", 32),
    Setting("num_key_value_heads", "kv_heads", 8),
    Setting("head_dim", "head_dim", None, accept=optional(integer())),
    Setting("intermediate_size", "mlp_dim", 14_336),
    Setting("max_position_embeddings", "max_positions", 131_072),
    Setting("rms_norm_eps", "norm_eps", 1e-5),
    Setting("tie_word_embeddings", "tied", False),
    Setting("num_local_experts", "experts", 8, also=("num_experts",)),
    Setting("num_experts_per_tok", "experts_per_token", 2),
    Setting("router_aux_loss_coef", "balance_weight", 0.001, accept=number()),
    Fixed("hidden_act", "silu"),
    Setting("sliding_window", "windows", None, accept=optional(integer())),
    # Noise in training; and router logits are returned on request only.
    Unused("router_jitter_noise"),
    Unused("output_router_logits"),
]


def parse_config(config: Mapping[str, Any], folder: Path | str) -> MixtralConfig:
    """Convert published settings to our config.

    Raises CourseError, naming the folder, when the settings describe another kind of model.
    """
    require_model_type(config, folder, "mixtral")
    values = read_settings(SETTINGS, config)
    width, heads = values["width"], values["heads"]
    if width % heads and values["head_dim"] is None:
        raise CourseError(f"hidden_size {width} does not divide into {heads} heads (num_attention_heads); change one")
    if heads % values["kv_heads"]:
        raise CourseError(
            f"num_attention_heads {heads} is no multiple of num_key_value_heads {values['kv_heads']}, which share them"
        )
    window = values.pop("windows")
    values["windows"] = () if window is None else (window,) * values["depth"]
    rotary = read_rotary(config, values["max_positions"], DEFAULT_ROTARY_BASE)
    decoder = build_config(MixtralConfig, **values, **rotary)
    if decoder.width_per_head % 2:
        raise CourseError(f"head_dim is {decoder.width_per_head}; rotary positions rotate pairs, so it must be even")
    return decoder


def write_config(config: MixtralConfig) -> dict[str, Any]:
    """Convert our config to the settings of `MixtralForCausalLM`.

    Raises CourseError for a decoder that the published class does not describe.
    """
    config = replace(config, head_dim=config.width_per_head)
    rotary = write_rotary(config)
    settings = {
        "model_type": "mixtral",
        "architectures": ["MixtralForCausalLM"],
        **write_settings(SETTINGS, asdict(config)),
        "sliding_window": config.windows[0] if config.windows else None,
        "rope_theta": rotary.pop("rope_theta"),
        "rope_scaling": rotary if config.rotary_scaling else None,
    }
    require_same(config, parse_config(settings, "the written config.json"))
    return settings
