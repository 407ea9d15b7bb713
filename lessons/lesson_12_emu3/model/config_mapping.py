"""Map the `config.json` of published Emu3s to our config, and back; weight_names.py maps the weights.

Read and written: `Emu3ForConditionalGeneration`, and `Emu3VQVAE` in a folder of its own.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lessons.lesson_12_emu3.model.config import Emu3Config, VisionTokenizerConfig
from lessons.lesson_12_emu3.model.vocabulary import END_OF_LINE, MARKERS, PADDING, PLACEHOLDER
from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import (
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
from shared.pretrained.setting_values import flag, integer, optional
from shared.transformer import DecoderConfig

MODEL_TYPE = "emu3"
TEXT_TYPE = "emu3_text_model"
TOKENIZER_TYPE = "emu3_vqgan"
ROTARY_BASE = 1_000_000.0
"""The base of rotary positions in a config without one."""


def _integers(minimum: int) -> Any:
    """Accept a list of whole numbers."""

    def accept(value: Any) -> tuple[int, ...]:
        if not isinstance(value, list | tuple):
            raise ValueError("a list of whole numbers")
        return tuple(map(integer(minimum), value))

    return accept


def _names(value: Any) -> dict[str, int]:
    """Accept the token id of each token by its name."""
    if not isinstance(value, dict):
        raise ValueError("the token id of every token by its name; without it, no image can be encoded")
    return {name: integer(0)(token_id) for name, token_id in value.items()}


# ── Tables ────────────────────────────────────────────────────────────────────────────────────────────────────────────

TOKENIZER: list[Row] = [
    Setting("codebook_size", "codebook_size", 32_768),
    Setting("embed_dim", "code_dim", 4),
    Setting("latent_channels", "latent_channels", 4),
    Setting("in_channels", "channels", 3),
    Setting("out_channels", "out_channels", 3),
    Setting("temporal_downsample_factor", "temporal_factor", 4),
    Setting("base_channels", "width", 256),
    Setting("channel_multiplier", "multipliers", (1, 2, 2, 4), accept=_integers(1)),
    Setting("num_res_blocks", "blocks", 2),
    Setting("attn_resolutions", "attention_levels", (3,), accept=_integers(0)),
    Setting("num_attention_heads", "attention_heads", 1),
    # With true, the published class has an output of twice the channels that its next layer takes, and fails.
    Fixed("double_latent", False),
    # Attention acts on feature maps, whose channels follow from the settings above; left out, it is 1024.
    Setting("hidden_size", "hidden_size", 1024),
]
LANGUAGE: list[Row] = [
    Setting("vocab_size", "vocab_size", 184_622),
    Setting("hidden_size", "width", 4096),
    Setting("intermediate_size", "mlp_dim", 14_336),
    Setting("num_hidden_layers", "depth", 32),
    Setting("num_attention_heads", "heads", 32),
    Setting("num_key_value_heads", "kv_heads", 8),
    Setting("max_position_embeddings", "max_positions", 9216),
    Setting("rms_norm_eps", "norm_eps", 1e-5),
    # No setting of the class's own, but its attention and its rotary positions use it.
    Setting("head_dim", "head_dim", None, accept=optional(integer())),
    Fixed("hidden_act", "silu"),
    Unused("rope_parameters"),  # read by `read_rotary`
    # The whole model's setting decides.
    Unused("tie_word_embeddings"),
]
BIASES: list[Row] = [
    Setting("attention_bias", "attention_bias", False, accept=flag),
    Setting("mlp_bias", "mlp_bias", False, accept=flag),
]
MODEL: list[Row] = [
    Setting("tie_word_embeddings", "tied", False),
    Setting("vocabulary_map", "vocabulary_map", accept=_names),
]
PARTS = ("vq_config", "text_config")

# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_emu3_config(folder: Path | str) -> Emu3Config:
    """Return our config of a published model. Raises CourseError when the folder holds another one."""
    return parse_emu3_config(pretrained.read_config(folder, MODEL_TYPE), folder)


def parse_emu3_config(config: Mapping[str, Any], folder: Path | str) -> Emu3Config:
    """Return our config of published settings. Raises CourseError, naming the folder, for unsupported ones."""
    text = {"model_type": TEXT_TYPE} | (read_part(config, "text_config") or {})
    require_model_type(text, f"the text_config of {folder}", TEXT_TYPE)
    tokenizer = {"model_type": TOKENIZER_TYPE} | (read_part(config, "vq_config") or {})
    language = read_settings(LANGUAGE, text, "text_config")
    of_model = read_settings(MODEL, config)
    width, heads, kv_heads = language["width"], language["heads"], language["kv_heads"]
    head_dim = width // heads if language["head_dim"] is None else language["head_dim"]
    if (language["head_dim"] is None and width % heads) or head_dim % 2 or heads % kv_heads:
        raise CourseError(
            f"hidden_size {width} is divided among {heads} query heads (num_attention_heads) of head_dim "
            f"{language['head_dim']}, which share {kv_heads} key heads (num_key_value_heads); expected an even "
            "dimension per head, and a divisor of the query heads"
        )
    rotary = read_rotary(text, language["max_positions"], ROTARY_BASE)
    fields = language | rotary | {"head_dim": head_dim, "tied": of_model["tied"]}
    return build_config(
        Emu3Config,
        language=build_config(DecoderConfig, **fields),
        tokenizer=_parse_tokenizer(tokenizer, f"the vq_config of {folder}"),
        vocabulary_map=of_model["vocabulary_map"],
        **read_settings(BIASES, text, "text_config"),
    )


def read_tokenizer_config(folder: Path | str) -> VisionTokenizerConfig:
    """Return our config of a published vision tokenizer. Raises CourseError when the folder holds another model."""
    return _parse_tokenizer(pretrained.read_config(folder), folder)


def _parse_tokenizer(config: Mapping[str, Any], source: Path | str) -> VisionTokenizerConfig:
    require_model_type(config, source, TOKENIZER_TYPE)
    fields = read_settings(TOKENIZER, config, "vq_config")
    attention_width = fields.pop("hidden_size")
    parsed = build_config(VisionTokenizerConfig, **fields)
    if attention_width != parsed.attention_width:
        raise CourseError(
            f"hidden_size is {attention_width} in the vq_config of {source}, and attention acts on "
            f"{parsed.attention_width} channels (base_channels times the last channel_multiplier); expected equal "
            "numbers"
        )
    return parsed


# ── Writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_emu3_config(config: Emu3Config) -> dict[str, Any]:
    """Return the contents of a published config.json. Raises CourseError for a model that could not be read again.

    `image_token_id`, which the published class derives from the vocabulary, is written too.
    """
    config = replace(
        config,
        language=replace(config.language, head_dim=config.language.width_per_head),
        dropout=0.0,  # in training only
    )
    language, rotary = config.language, write_rotary(config.language)
    text = write_settings(LANGUAGE, asdict(language))
    if language.head_dim is not None and language.head_dim * language.heads == language.width:
        text.pop("head_dim")
    settings = {
        "model_type": MODEL_TYPE,
        "architectures": ["Emu3ForConditionalGeneration"],
        "text_config": {
            "model_type": TEXT_TYPE,
            **text,
            # The form of version 4 of transformers, which every program reads.
            "rope_theta": rotary.pop("rope_theta"),
            "rope_scaling": rotary if language.rotary_scaling else None,
            **write_settings(BIASES, vars(config)),
            **_special_token_ids(config.vocabulary_map),
        },
        "tie_word_embeddings": language.tied,
        "vocabulary_map": dict(config.vocabulary_map),
        "image_token_id": config.vocabulary_map.get(PLACEHOLDER),
        "vq_config": write_tokenizer_config(config.tokenizer),
    }
    read = parse_emu3_config(settings, "the written folder")
    require_same(config.language, read.language)
    require_same(config, read)
    return settings


def _special_token_ids(names: Mapping[str, int]) -> dict[str, int]:
    """Return the token ids that the published class must have: its own defaults may be out of range."""
    special = {
        "bos_token_id": MARKERS["bos"],
        "eos_token_id": MARKERS["eos"],
        # A vocabulary without padding has some other token that is no input: its embedding is not trained there.
        "pad_token_id": next((name for name in (PADDING, PLACEHOLDER) if name in names), END_OF_LINE),
    }
    return {setting: names[name] for setting, name in special.items() if name in names}


def write_tokenizer_config(config: VisionTokenizerConfig) -> dict[str, Any]:
    """Return the published settings of a vision tokenizer. Raises CourseError for one that could not be read again."""
    fields = asdict(config) | {"hidden_size": config.attention_width}
    settings = {
        "model_type": TOKENIZER_TYPE,
        "architectures": ["Emu3VQVAE"],
        **{
            name: list(value) if isinstance(value, tuple) else value
            for name, value in write_settings(TOKENIZER, fields).items()
        },
    }
    require_same(config, _parse_tokenizer(settings, "the written folder"))
    return settings
