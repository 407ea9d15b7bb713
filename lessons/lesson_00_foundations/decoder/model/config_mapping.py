"""Map the `config.json` of published Llamas and Qwen2s to our config, and back; language_model.py maps the weights."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import (
    Derived,
    Fixed,
    Row,
    Setting,
    Unused,
    read_settings,
    require_model_type,
    require_same,
    write_settings,
)
from shared.pretrained.rotary_settings import read_rotary, write_rotary
from shared.pretrained.setting_values import integer, optional
from shared.transformer import DecoderConfig

COMMON_SETTINGS: list[Row] = [
    Setting("vocab_size", "vocab_size", 32_000),
    Setting("hidden_size", "width", 4096),
    Setting("num_hidden_layers", "depth", 32),
    Setting("num_attention_heads", "heads", 32),
    Setting("intermediate_size", "mlp_dim", 11_008),
    Setting("max_position_embeddings", "max_positions", 2048),
    Setting("rms_norm_eps", "norm_eps", 1e-6),
    Setting("tie_word_embeddings", "tied", False),
    Fixed("hidden_act", "silu"),
]
SETTINGS: list[Row] = [
    *COMMON_SETTINGS,
    Setting("num_key_value_heads", "kv_heads", None, accept=optional(integer())),
    Setting("head_dim", "head_dim", None, accept=optional(integer())),
    Fixed("attention_bias", False),
    Fixed("mlp_bias", False),
]
QWEN2_DEFAULTS = {"vocab_size": 151_936, "mlp_dim": 22_016, "max_positions": 32_768}
QWEN2_SETTINGS: list[Row] = [
    *(
        replace(row, default=QWEN2_DEFAULTS.get(row.field, row.default)) if isinstance(row, Setting) else row
        for row in COMMON_SETTINGS
    ),
    Setting("num_key_value_heads", "kv_heads", 32, accept=optional(integer())),
    Setting("head_dim", "head_dim", None, accept=optional(integer())),
    Fixed("use_sliding_window", False),
    # Without use_sliding_window, these two have no effect, and no layer may be named a sliding one.
    Unused("sliding_window"),
    Unused("max_window_layers"),
    Derived("layer_types", lambda fields: ("full_attention",) * fields["depth"]),
]


def read_config(folder: Path | str) -> DecoderConfig:
    """Read the config of a published folder. Raises CourseError when the folder holds another kind of model."""
    return parse_config(pretrained.read_config(folder), folder)


def parse_config(config: Mapping[str, Any], folder: Path | str) -> DecoderConfig:
    """Convert published settings, which may be a part of a larger file (`text_config`), to our config.

    Raises CourseError, naming the folder, when the settings describe another kind of model.
    """
    require_model_type(config, folder, "llama", "qwen2")
    qwen2 = config["model_type"] == "qwen2"
    values = read_settings(QWEN2_SETTINGS if qwen2 else SETTINGS, config)
    width, heads = values["width"], values["heads"]
    # The published Llama refuses such a width with a head_dim too.
    if width % heads and (values["head_dim"] is None or not qwen2):
        raise CourseError(f"hidden_size {width} does not divide into {heads} heads (num_attention_heads); change one")
    values["kv_heads"] = values["kv_heads"] or heads
    if heads % values["kv_heads"]:
        raise CourseError(
            f"num_attention_heads {heads} is no multiple of num_key_value_heads {values['kv_heads']}, which share them"
        )
    decoder = DecoderConfig(**values, **read_rotary(config, values["max_positions"]), qkv_bias=qwen2)
    if decoder.width_per_head % 2:
        raise CourseError(f"head_dim is {decoder.width_per_head}; rotary positions rotate pairs, so it must be even")
    return decoder


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """Convert our config to the published settings of Llama 3, or of Qwen2 if queries, keys and values have biases.

    Raises CourseError for a decoder that no published Llama or Qwen2 describes, such as an OPT.
    """
    config = replace(config, head_dim=config.width_per_head)
    rotary = write_rotary(config)
    # The form of version 4, which every program reads.
    base = {"rope_theta": rotary.pop("rope_theta"), "rope_scaling": rotary if config.rotary_scaling else None}
    settings = {
        "model_type": "qwen2" if config.qkv_bias else "llama",
        "architectures": ["Qwen2ForCausalLM" if config.qkv_bias else "LlamaForCausalLM"],
        **write_settings(QWEN2_SETTINGS if config.qkv_bias else SETTINGS, asdict(config)),
        **base,
    }
    require_same(config, parse_config(settings, "the written config.json"))
    return settings
