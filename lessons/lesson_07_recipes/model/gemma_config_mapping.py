"""Map the `config.json` and the weight names of published Gemmas and Gemma 2s to ours, and back."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lessons.lesson_00_foundations.decoder.model import weight_names as llama_weight_names
from shared.errors import CourseError
from shared.pretrained import (
    Derived,
    Fixed,
    Rename,
    Row,
    Rule,
    Setting,
    Unused,
    WeightNames,
    build_config,
    read_settings,
    require_model_type,
    require_same,
    with_prefix,
    write_settings,
)
from shared.pretrained.rotary_settings import read_rotary, write_rotary
from shared.pretrained.setting_values import integer, number, one_of, optional
from shared.transformer import DecoderConfig

LOCAL, GLOBAL = "sliding_attention", "full_attention"
GEMMA_ONLY = {
    "activation": "gelu_pytorch_tanh",
    "norm_offset": 1.0,
    "scaled_embedding": True,
}
"""The fields of our config that every Gemma has."""


def _layer_types(value: Any) -> tuple[str, ...] | None:
    """Accept null, or a type of attention for each layer."""
    accept_type = one_of((LOCAL, GLOBAL))
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise ValueError(f"null, or a list of {LOCAL!r} and {GLOBAL!r}")
    return tuple(accept_type(each) for each in value)


COMMON_SETTINGS: list[Row] = [
    Setting("vocab_size", "vocab_size", 256_000),
    Setting("head_dim", "head_dim", 256),
    Setting("max_position_embeddings", "max_positions", 8192),
    Setting("rms_norm_eps", "norm_eps", 1e-6),
    Setting("tie_word_embeddings", "tied", True),
    Fixed("attention_bias", False),
]
GEMMA_SETTINGS: list[Row] = [
    *COMMON_SETTINGS,
    Setting("hidden_size", "width", 3072),
    Setting("num_hidden_layers", "depth", 28),
    Setting("num_attention_heads", "heads", 16),
    Setting("num_key_value_heads", "kv_heads", 16),
    Setting("intermediate_size", "mlp_dim", 24_576),
    # The first files state "gelu" and mean its approximation by tanh; some also state the latter as hidden_activation.
    Setting("hidden_act", "activation", "gelu_pytorch_tanh", accept=one_of(("gelu_pytorch_tanh", "gelu"))),
    Derived("hidden_activation", lambda _: "gelu_pytorch_tanh"),
]
GEMMA2_SETTINGS: list[Row] = [
    *COMMON_SETTINGS,
    Setting("hidden_size", "width", 2304),
    Setting("num_hidden_layers", "depth", 26),
    Setting("num_attention_heads", "heads", 8),
    Setting("num_key_value_heads", "kv_heads", 4),
    Setting("intermediate_size", "mlp_dim", 9216),
    Setting("query_pre_attn_scalar", "query_scalar", 256),
    Setting("attn_logit_softcapping", "attention_softcap", 50.0, accept=optional(number(above=True))),
    Setting("final_logit_softcapping", "output_softcap", 30.0, accept=optional(number(above=True))),
    Setting("sliding_window", "window", 4096, accept=integer()),
    Setting("layer_types", "layer_types", None, accept=_layer_types),
    Fixed("hidden_activation", "gelu_pytorch_tanh"),
]
BIDIRECTIONAL = "use_bidirectional_attention"


def parse_gemma_config(config: Mapping[str, Any], folder: Path | str, *, prefix_lm: bool = False) -> DecoderConfig:
    """Convert published settings, which may be a part of a larger file (`text_config`), to our config.

    prefix_lm  whether the decoder is that of a PaliGemma, whose masks do not depend on `use_bidirectional_attention`

    Raises CourseError, naming the folder, when the settings describe another kind of model.
    """
    require_model_type(config, folder, "gemma", "gemma2")
    gemma2 = config["model_type"] == "gemma2"
    direction: Row = Unused(BIDIRECTIONAL) if prefix_lm else Derived(BIDIRECTIONAL, lambda _: False)
    values = read_settings([*(GEMMA2_SETTINGS if gemma2 else GEMMA_SETTINGS), direction], config)
    width, heads = values["width"], values["heads"]
    if gemma2 and width % heads:  # the published class refuses it, although head_dim is a setting of its own
        raise CourseError(f"hidden_size {width} does not divide into {heads} heads (num_attention_heads); change one")
    if heads % values["kv_heads"]:
        raise CourseError(
            f"num_attention_heads {heads} is no multiple of num_key_value_heads {values['kv_heads']}, which share them"
        )
    if values["head_dim"] % 2:
        raise CourseError(f"head_dim is {values['head_dim']}; rotary positions rotate pairs, so it must be even")
    if gemma2:
        values["windows"] = _windows(values.pop("layer_types"), values.pop("window"), values["depth"])
        values["post_norms"] = True
    return build_config(DecoderConfig, **(values | GEMMA_ONLY), **read_rotary(config, values["max_positions"]))


def _windows(layer_types: tuple[str, ...] | None, window: int, depth: int) -> tuple[int | None, ...]:
    """Return the window of each layer; without types, the layers alternate and the first is local."""
    if layer_types is None:
        layer_types = tuple(GLOBAL if layer % 2 else LOCAL for layer in range(depth))
    if len(layer_types) != depth:
        raise CourseError(f"layer_types has {len(layer_types)} entries for {depth} layers (num_hidden_layers)")
    windows = tuple(window if each == LOCAL else None for each in layer_types)
    return windows if any(windows) else ()


def write_gemma_config(config: DecoderConfig, *, prefix_lm: bool = False) -> dict[str, Any]:
    """Convert our config to the published settings of Gemma 2, or of Gemma if there are no norms after the parts.

    Raises CourseError for a decoder that neither class describes.
    """
    config = replace(config, head_dim=config.width_per_head)
    windows = [window for window in config.windows if window is not None]
    if not windows:
        config = replace(config, windows=())
    if config.post_norms:
        config = replace(config, query_scalar=config.query_scalar or config.head_dim)
    fields = asdict(config) | {
        "window": windows[0] if windows else 4096,
        "layer_types": [GLOBAL if window is None else LOCAL for window in config.windows or (None,) * config.depth],
    }
    rotary = write_rotary(config)
    settings = {
        "model_type": "gemma2" if config.post_norms else "gemma",
        "architectures": ["Gemma2ForCausalLM" if config.post_norms else "GemmaForCausalLM"],
        **write_settings(GEMMA2_SETTINGS if config.post_norms else GEMMA_SETTINGS, fields),
        # The form of version 4, which every program reads.
        "rope_theta": rotary.pop("rope_theta"),
        "rope_scaling": rotary if config.rotary_scaling else None,
    }
    require_same(config, parse_gemma_config(settings, "the written config.json", prefix_lm=prefix_lm))
    return settings


# ── Weight names ──────────────────────────────────────────────────────────────────────────────────────────────────────

# `post_attention_layernorm` is the norm before the MLP in Llama and Gemma, and the norm after attention in Gemma 2.
GEMMA2_NORMS: list[Rule] = [
    Rename("post_attention_layernorm.weight", "attention_post_norm.weight"),
    Rename("pre_feedforward_layernorm.weight", "mlp_norm.weight"),
    Rename("post_feedforward_layernorm.weight", "mlp_post_norm.weight"),
]


def gemma_weight_names(config: DecoderConfig) -> WeightNames:
    """Return the names of the weights in `GemmaForCausalLM`, which are Llama's, or in `Gemma2ForCausalLM`."""
    names = llama_weight_names(config)
    if not config.post_norms:
        return names
    same = [rule for rule in names.rules if rule.patterns[1] != ["blocks.{n}.mlp_norm.weight"]]
    return WeightNames(
        [*same, *with_prefix("model.layers.{n}.", "blocks.{n}.", GEMMA2_NORMS)], ties=names.ties, ignore=names.ignore
    )
