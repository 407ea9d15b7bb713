"""Map the `config.json` of published Chameleons to our config, and back; weight_names.py maps the weights.

Read and written: `ChameleonForConditionalGeneration`, and `ChameleonVQVAE` in a folder of its own.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lessons.lesson_11_chameleon.model.config import BlockDesign, ChameleonConfig, VQConfig
from lessons.lesson_11_chameleon.model.vocabulary import PLACEHOLDER
from shared import pretrained
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
from shared.pretrained.setting_values import flag, integer
from shared.transformer import DecoderConfig

MODEL_TYPE = "chameleon"
VQ_TYPE = "chameleon_vqgan"


def _flag(value: Any) -> bool:
    """Accept true, false, and null for false."""
    return value is not None and flag(value)


def _integers(value: Any) -> tuple[int, ...]:
    """Accept a list of whole numbers."""
    if not isinstance(value, list | tuple):
        raise ValueError("a list of whole numbers")
    return tuple(map(integer(), value))


def _integers_or_null(value: Any) -> tuple[int, ...]:
    """Accept a list of whole numbers, and null for an empty one."""
    return () if value is None else _integers(value)


def _attention(value: Any) -> bool:
    """Accept the type of attention; every other name than "vanilla" means none."""
    if not isinstance(value, str):
        raise ValueError('a string: "vanilla" for attention, another one for none')
    return value == "vanilla"


def _names(value: Any) -> dict[str, int]:
    """Accept the token id of each token by its name."""
    if not isinstance(value, dict):
        raise ValueError("the token id of every token by its name; without it, no image can be encoded")
    return {name: integer(0)(token_id) for name, token_id in value.items()}


# ── Tables ────────────────────────────────────────────────────────────────────────────────────────────────────────────

VQ: list[Row] = [
    Setting("resolution", "image_size", 512),
    Setting("in_channels", "channels", 3),
    Setting("base_channels", "width", 128),
    Setting("channel_multiplier", "multipliers", (1, 1, 2, 2, 4), accept=_integers),
    Setting("num_res_blocks", "blocks", 2),
    Setting("attn_type", "attention", True, accept=_attention),
    Setting("attn_resolutions", "attention_sizes", (), accept=_integers_or_null),
    Setting("latent_channels", "latent_channels", 256),
    Setting("embed_dim", "code_dim", 256),
    Setting("num_embeddings", "codebook_size", 8192),
    # With true, the published class has an output of twice the channels that its next layer takes, and fails.
    Fixed("double_latent", False),
]
LANGUAGE: list[Row] = [
    Setting("vocab_size", "vocab_size", 65_536),
    Setting("hidden_size", "width", 4096),
    Setting("intermediate_size", "mlp_dim", 11_008),
    Setting("num_hidden_layers", "depth", 32),
    Setting("num_attention_heads", "heads", 32),
    Setting("num_key_value_heads", "kv_heads", 32),
    Setting("max_position_embeddings", "max_positions", 4096),
    Setting("rms_norm_eps", "norm_eps", 1e-5),
    Setting("tie_word_embeddings", "tied", False),
    Fixed("hidden_act", "silu"),
    # The number of parts in which the model was trained; published files have the parameters of every head.
    Unused("model_parallel_size"),
    Unused("rope_parameters"),  # read by `read_rotary`
    # No setting of the class, but its rotary positions would use it, and its attention would not.
    Derived("head_dim", lambda fields: fields["width"] // fields["heads"]),
]
DESIGN: list[Row] = [
    Setting("swin_norm", "norms_after", False, accept=_flag),
    Setting("attention_bias", "attention_bias", False, accept=_flag),
    Setting("mlp_bias", "mlp_bias", False),
]
NAMES: list[Row] = [Setting("vocabulary_map", "vocabulary_map", accept=_names)]
PARTS = ("vq_config",)

# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_chameleon_config(folder: Path | str) -> ChameleonConfig:
    """Return our config of a published model. Raises CourseError when the folder holds another one."""
    return parse_chameleon_config(pretrained.read_config(folder, MODEL_TYPE), folder)


def parse_chameleon_config(config: Mapping[str, Any], folder: Path | str) -> ChameleonConfig:
    """Return our config of published settings. Raises CourseError, naming the folder, for unsupported ones."""
    language = read_settings(LANGUAGE, config)
    width, heads, kv_heads = language["width"], language["heads"], language["kv_heads"]
    if width % heads or width // heads % 2 or heads % kv_heads:
        raise CourseError(
            f"hidden_size {width} is divided among {heads} query heads (num_attention_heads), which share {kv_heads} "
            "key heads (num_key_value_heads); expected an even dimension per head, and a divisor of the query heads"
        )
    vq = {"model_type": VQ_TYPE} | (read_part(config, "vq_config") or {})
    return build_config(
        ChameleonConfig,
        language=build_config(
            DecoderConfig, **language, head_dim=width // heads, **read_rotary(config, language["max_positions"])
        ),
        design=build_config(BlockDesign, **read_settings(DESIGN, config)),
        tokenizer=_parse_vq(vq, f"the vq_config of {folder}"),
        **read_settings(NAMES, config),
    )


def read_vq_config(folder: Path | str) -> VQConfig:
    """Return our config of a published image tokenizer. Raises CourseError when the folder holds another model."""
    return _parse_vq(pretrained.read_config(folder), folder)


def _parse_vq(config: Mapping[str, Any], source: Path | str) -> VQConfig:
    require_model_type(config, source, VQ_TYPE)
    return build_config(VQConfig, **read_settings(VQ, config, "vq_config"))


# ── Writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_chameleon_config(config: ChameleonConfig) -> dict[str, Any]:
    """Return the contents of a published config.json. Raises CourseError for a model that could not be read again.

    `image_token_id`, which the published class derives from the vocabulary, is written too.
    """
    if not config.design.qk_norm:
        raise CourseError("every published Chameleon has QK-norm; save a model with qk_norm True, or its weights")
    config = replace(
        config,
        language=replace(config.language, head_dim=config.language.width_per_head),
        design=replace(config.design, dropout=0.0),  # in training only
    )
    rotary = write_rotary(config.language)
    # The form of version 4 of transformers, which every program reads.
    base = {"rope_theta": rotary.pop("rope_theta"), "rope_scaling": rotary if config.language.rotary_scaling else None}
    settings = {
        "model_type": MODEL_TYPE,
        "architectures": ["ChameleonForConditionalGeneration"],
        **write_settings(LANGUAGE, asdict(config.language)),
        **base,
        **write_settings(DESIGN, asdict(config.design)),
        "vocabulary_map": dict(config.vocabulary_map),
        "image_token_id": config.vocabulary_map.get(PLACEHOLDER),
        "vq_config": write_vq_config(config.tokenizer),
    }
    read = parse_chameleon_config(settings, "the written folder")
    require_same(config.design, read.design)
    require_same(config.language, read.language)
    require_same(config, read)
    return settings


def write_vq_config(config: VQConfig) -> dict[str, Any]:
    """Return the published settings of an image tokenizer. Raises CourseError for one that could not be read again."""
    fields = asdict(config) | {"attention": "vanilla" if config.attention else "none"}
    settings = {
        "model_type": VQ_TYPE,
        "architectures": ["ChameleonVQVAE"],
        **{
            name: list(value) if isinstance(value, tuple) else value
            for name, value in write_settings(VQ, fields).items()
        },
    }
    require_same(config, _parse_vq(settings, "the written vq_config"))
    return settings
