"""Published InternVL checkpoints: configs and weight names in both directions.

Read and written: `InternVLForConditionalGeneration` with a Qwen2, Qwen3 or Llama. V2PE and the router have no published
layout in `transformers`; a model with a router is not written.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lessons.lesson_00_foundations.decoder.model import config_mapping as llama
from lessons.lesson_00_foundations.decoder.model import weight_names as language_weight_names
from lessons.lesson_01_vit.model.weight_names import MLP, VIT_NORMS
from lessons.lesson_05_llava.model.config_mapping import vision_language_weight_names
from lessons.lesson_09_qwen_vl.model.config import VISION_ACTIVATIONS
from lessons.lesson_09_qwen_vl.model.weight_names import QK_NORMS
from lessons.lesson_10_internvl.model.config import InternVLConfig, VisionConfig
from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import (
    Checkpoint,
    Derived,
    Fixed,
    Rearrange,
    Rename,
    Row,
    Rule,
    Setting,
    Unused,
    WeightNames,
    build_config,
    read_part,
    read_settings,
    require_model_type,
    require_same,
    with_prefix,
    write_settings,
)
from shared.pretrained.rotary_settings import read_rotary, write_rotary
from shared.pretrained.setting_values import integer, one_of, optional, square
from shared.transformer import DecoderConfig

MODEL_TYPE = "internvl"
VISION_TYPE = "internvl_vision"
LANGUAGE_TYPES = ("qwen2", "qwen3", "llama")
NORMS = {"layer_norm": "layer", "rms_norm": "rms"}
RATIOS = {1 / factor: factor for factor in (1, 2, 4, 8)}


def _norm(value: Any) -> str:
    return NORMS[one_of(NORMS)(value)]


def _last_norm(value: Any) -> bool:
    """Accept `use_mean_pooling`: without it, the encoder has a last norm."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return not value


def _unshuffle(value: Any) -> int:
    """Accept 1, 1/2, 1/4 or 1/8; with other fractions the published class does not compute a grid."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value not in RATIOS:
        raise ValueError("1, 0.5, 0.25 or 0.125")
    return RATIOS[value]


def _layer(value: Any) -> int:
    """Accept the index of one hidden state; the published class fails for 0 and for a list."""
    if integer(None)(value) == 0:
        raise ValueError("a whole number that is not 0")
    return value


# ── Tables ────────────────────────────────────────────────────────────────────────────────────────────────────────────

VISION: list[Row] = [
    Setting("image_size", "image_size", 448, accept=square),
    Setting("patch_size", "patch_size", 14, accept=square),
    Setting("num_channels", "channels", 3),
    Setting("hidden_size", "width", 1024),
    Setting("num_hidden_layers", "depth", 24),
    Setting("num_attention_heads", "heads", 16),
    Setting("intermediate_size", "mlp_dim", 4096),
    Setting("hidden_act", "activation", "gelu", accept=one_of(VISION_ACTIVATIONS)),
    Setting("norm_type", "norm", "layer", accept=_norm),
    Setting("layer_norm_eps", "norm_eps", 1e-6),
    Setting("attention_bias", "qkv_bias", False),
    Setting("use_qk_norm", "qk_norm", False),
    Setting("use_absolute_position_embeddings", "positions", True),
    Setting("layer_scale_init_value", "layer_scale", 0.1),
    Setting("use_mean_pooling", "last_norm", False, accept=_last_norm),
    Fixed("use_mask_token", False),
    Derived("head_dim", lambda fields: fields["width"] // fields["heads"]),
    Unused("projection_dropout"),  # in training only
]
QWEN3: list[Row] = [
    Setting("vocab_size", "vocab_size", 151_936),
    Setting("hidden_size", "width", 4096),
    Setting("intermediate_size", "mlp_dim", 22_016),
    Setting("num_hidden_layers", "depth", 32),
    Setting("num_attention_heads", "heads", 32),
    Setting("num_key_value_heads", "kv_heads", 32, accept=optional(integer())),
    Setting("head_dim", "head_dim", 128),
    Setting("max_position_embeddings", "max_positions", 32_768),
    Setting("rms_norm_eps", "norm_eps", 1e-6),
    Setting("tie_word_embeddings", "tied", False),
    Fixed("hidden_act", "silu"),
    Fixed("attention_bias", False),
    Fixed("use_sliding_window", False),
    # Without use_sliding_window, these two have no effect, and no layer may be named a sliding one.
    Unused("sliding_window"),
    Unused("max_window_layers"),
    Derived("layer_types", lambda fields: ("full_attention",) * fields["depth"]),
    Unused("rope_parameters"),  # read by `read_rotary`
]
OUTER: list[Row] = [
    Setting("image_token_id", "image_token_id", 151_667, accept=integer(0)),
    Setting("downsample_ratio", "unshuffle", 2, accept=_unshuffle),
    Setting("projector_hidden_act", "projector_activation", "gelu", accept=one_of(VISION_ACTIVATIONS)),
    Setting("vision_feature_layer", "feature_layer", -1, accept=_layer),
    Setting("tie_word_embeddings", "tied", True),
    # "full" adds the class token, and then the features are no square grid.
    Fixed("vision_feature_select_strategy", "default"),
]
PARTS = ("vision_config", "text_config")

# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_internvl_config(folder: Path | str) -> InternVLConfig:
    """Return our config of a published model. Raises CourseError when the folder holds another one.

    A file of version 4 of transformers may leave `tie_word_embeddings` out for an untied model too. As in the
    published class, the embeddings are tied unless the weights contain an output layer.
    """
    config = parse_internvl_config(pretrained.read_config(folder, MODEL_TYPE), folder)
    if not config.language.tied:
        return config
    with Checkpoint(folder) as checkpoint:
        tied = not any(name.endswith("lm_head.weight") for name in checkpoint.shapes)
    return replace(config, language=replace(config.language, tied=tied))


def parse_internvl_config(config: Mapping[str, Any], folder: Path | str) -> InternVLConfig:
    """Return our config of published settings. Raises CourseError, naming the folder, for unsupported ones."""
    outer = read_settings(OUTER, config)
    tied = outer.pop("tied")
    vision = {"model_type": VISION_TYPE} | (read_part(config, "vision_config") or {})
    require_model_type(vision, f"the vision_config of {folder}", VISION_TYPE)
    text = {"model_type": "qwen2"} | (read_part(config, "text_config") or {})
    require_model_type(text, f"the text_config of {folder}", *LANGUAGE_TYPES)
    qk_norm = text["model_type"] == "qwen3"
    language = _parse_qwen3(text) if qk_norm else llama.parse_config(text, f"the text_config of {folder}")
    return build_config(
        InternVLConfig,
        vision=build_config(VisionConfig, **read_settings(VISION, vision, "vision_config")),
        language=replace(language, tied=tied, head_dim=language.width_per_head),
        qk_norm=qk_norm,
        **outer,
    )


def _parse_qwen3(text: Mapping[str, Any]) -> DecoderConfig:
    fields = read_settings(QWEN3, text, "text_config")
    fields["kv_heads"] = fields["kv_heads"] or fields["heads"]
    if fields["heads"] % fields["kv_heads"] or fields["head_dim"] % 2:
        raise CourseError(
            f"{fields['heads']} query heads share {fields['kv_heads']} key heads of dimension {fields['head_dim']}; "
            "expected a divisor and an even dimension (num_key_value_heads, head_dim)"
        )
    return build_config(DecoderConfig, **fields, **read_rotary(text, fields["max_positions"]))


# ── Writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_internvl_config(config: InternVLConfig) -> dict[str, Any]:
    """Return the contents of a published config.json. Raises CourseError for a model that could not be read again."""
    if config.router:
        raise CourseError("no published class of transformers has a router; save a model with router False, or weights")
    config = replace(config, language=replace(config.language, head_dim=config.language.width_per_head))
    vision = asdict(config.vision) | {
        "norm": next(name for name, norm in NORMS.items() if norm == config.vision.norm),
        "last_norm": not config.vision.last_norm,  # use_mean_pooling
    }
    outer = asdict(config) | {"unshuffle": 1 / config.unshuffle, "tied": config.language.tied}
    settings = {
        "model_type": MODEL_TYPE,
        "architectures": ["InternVLForConditionalGeneration"],
        "vision_config": {"model_type": VISION_TYPE, **write_settings(VISION, vision)},
        "text_config": _write_qwen3(config.language) if config.qk_norm else llama.write_config(config.language),
        "image_seq_length": config.tile_tokens,
        **write_settings(OUTER, outer),
    }
    read = parse_internvl_config(settings, "the written folder")
    require_same(config.language, read.language)
    require_same(config, read)
    return settings


def _write_qwen3(language: DecoderConfig) -> dict[str, Any]:
    rotary = write_rotary(language)
    # The form of version 4, which every program reads.
    base = {"rope_theta": rotary.pop("rope_theta"), "rope_scaling": rotary if language.rotary_scaling else None}
    return {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        **write_settings(QWEN3, asdict(language)),
        **base,
    }


# ── Weight names ──────────────────────────────────────────────────────────────────────────────────────────────────────

VISION_BLOCK: list[Rule] = [
    Rename("attention.q_proj.{leaf}", "attention.query.{leaf}"),
    Rename("attention.k_proj.{leaf}", "attention.key.{leaf}"),
    Rename("attention.v_proj.{leaf}", "attention.value.{leaf}"),
    Rename("attention.projection_layer.{leaf}", "attention.output.{leaf}"),
    Rename("attention.q_norm.weight", "attention.query_norm.weight"),
    Rename("attention.k_norm.weight", "attention.key_norm.weight"),
    *VIT_NORMS,
    *MLP,
    Rename("lambda_1", "attention_scale"),
    Rename("lambda_2", "mlp_scale"),
]
PROJECTOR: list[Rule] = [
    Rename("multi_modal_projector.layer_norm.{leaf}", "projector.norm.{leaf}"),
    Rename("multi_modal_projector.linear_1.{leaf}", "projector.first.{leaf}"),
    Rename("multi_modal_projector.linear_2.{leaf}", "projector.second.{leaf}"),
]


def vision_weight_names(config: VisionConfig) -> WeightNames:
    """Return the published name of each weight of an InternViT."""
    kernel = Rearrange(
        "width channels row column -> width (row column channels)",
        channels=config.channels,
        row=config.patch_size,
        column=config.patch_size,
    )
    return WeightNames(
        [
            Rename("embeddings.patch_embeddings.projection.weight", "patch_embedding.project.weight", kernel),
            Rename("embeddings.patch_embeddings.projection.bias", "patch_embedding.project.bias"),
            Rename("embeddings.cls_token", "class_token", Rearrange("1 1 width -> width")),
            Rename("embeddings.position_embeddings", "positions", Rearrange("1 tokens width -> tokens width")),
            *with_prefix("encoder.layer.{n}.", "blocks.{n}.", VISION_BLOCK),
            Rename("layernorm.{leaf}", "norm.{leaf}"),
        ]
    )


def weight_names(config: InternVLConfig) -> WeightNames:
    """Return the published name of each weight, in the three generations of files that LLaVA has too."""
    language = language_weight_names(config.language)
    qk_norms = with_prefix("model.layers.{n}.", "blocks.{n}.", QK_NORMS)
    language = WeightNames([*language.rules, *qk_norms], ties=language.ties, ignore=language.ignore)
    names = vision_language_weight_names(vision_weight_names(config.vision), PROJECTOR, language)
    return WeightNames(
        [_in_tile_encoder(rule) for rule in names.rules],
        also_read=[_in_tile_encoder(rule) for rule in names.also_read],
        ties=names.ties,
        ignore=names.ignore,
    )


def _in_tile_encoder(rule: Rule) -> Rule:
    """Return the rule for a model whose vision encoder and projector are parts of its tile encoder."""
    inside = rule.patterns[1][0].startswith(("vision_encoder.", "projector."))
    return rule.with_prefix("", "tile_encoder.") if inside else rule
