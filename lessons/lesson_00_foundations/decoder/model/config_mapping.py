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
    read_part,
    read_settings,
    require_model_type,
    require_same,
    write_settings,
)
from shared.pretrained.setting_values import integer, number, optional
from shared.transformer import DecoderConfig, Llama3Scaling

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
# Since version 5 of transformers, `rope_parameters` holds base and scaling; older files store them separately.
ROTARY_SETTINGS: list[Row] = [
    Setting("rope_theta", "base", 10_000.0, accept=number(above=True)),
    Derived("partial_rotary_factor", lambda _: 1.0),
]
SCALING: list[Row] = [
    Setting("factor", "factor", accept=number(above=True)),
    Setting("low_freq_factor", "low_frequency_factor", accept=number(above=True)),
    Setting("high_freq_factor", "high_frequency_factor", accept=number(above=True)),
    Setting("original_max_position_embeddings", "original_context", accept=integer()),
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


def read_rotary(config: Mapping[str, Any], max_positions: int, default_base: float = 10_000.0) -> dict[str, Any]:
    """Return our config's `rotary_base` and `rotary_scaling` from all settings that the published classes read.

    default_base  the base that the published class assumes when the config has none

    `rope_scaling` wins over `rope_parameters`; each may hold the base and the type, which old files call `type`. A
    base beside them counts where they hold none. The trained length beside them wins over theirs.

    Raises CourseError for a scaling other than Llama 3's, and for heads of which only a part is rotated.
    """
    rotary = read_part(config, "rope_scaling") or read_part(config, "rope_parameters") or {}
    beside = {name: config[name] for name in ("rope_theta", "partial_rotary_factor") if name in config}
    rotary = beside | rotary
    settings = [replace(row, default=default_base) if isinstance(row, Setting) else row for row in ROTARY_SETTINGS]
    base = float(read_settings(settings, rotary, "the rotary position")["base"])
    scaling = rotary.get("rope_type", rotary.get("type", "default"))
    if scaling == "default":
        return {"rotary_base": base, "rotary_scaling": None}
    if scaling != "llama3":
        raise CourseError(
            f"the rotary scaling (rope_parameters or rope_scaling) is {scaling!r}; supported are 'llama3' and 'default'"
        )
    original = "original_max_position_embeddings"
    rotary = {original: max_positions} | rotary | ({original: config[original]} if original in config else {})
    values = read_settings(SCALING, rotary, "the rotary scaling")
    if values["low_frequency_factor"] >= values["high_frequency_factor"]:
        raise CourseError(
            f"low_freq_factor {values['low_frequency_factor']} of the rotary scaling is not below "
            f"high_freq_factor {values['high_frequency_factor']}"
        )
    return {"rotary_base": base, "rotary_scaling": Llama3Scaling(**values)}


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


def write_rotary(config: DecoderConfig) -> dict[str, Any]:
    """Return the published `rope_parameters` of a decoder."""
    scaling = config.rotary_scaling
    if scaling is None:
        return {"rope_type": "default", "rope_theta": config.rotary_base}
    return {"rope_type": "llama3", "rope_theta": config.rotary_base, **write_settings(SCALING, asdict(scaling))}
