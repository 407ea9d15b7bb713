"""Read and write the `config.json` of published `IdeficsForVisionText2Text` checkpoints."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from lessons.lesson_00_foundations.decoder.model import config_mapping as llama
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from lessons.lesson_02_clip.model import clip_vision_config
from lessons.lesson_04_flamingo.model.config import FlamingoConfig, ResamplerConfig
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
    require_same,
    write_settings,
)
from shared.pretrained.rotary_settings import read_rotary, write_rotary
from shared.pretrained.setting_values import integer, one_of
from shared.transformer import DecoderConfig
from shared.transformer.block import ACTIVATIONS

VISION_SETTINGS: list[Setting] = [
    Setting("embed_dim", "width", 768, also=("hidden_size",)),
    Setting("image_size", "image_size", 224),
    Setting("patch_size", "patch_size", 14),
    Setting("num_channels", "channels", 3),
    Setting("num_hidden_layers", "depth", 32),
    Setting("num_attention_heads", "heads", 16),
    Setting("intermediate_size", "mlp_dim", 5120),
    Setting("hidden_act", "activation", "gelu", accept=one_of(ACTIVATIONS)),
    Setting("layer_norm_eps", "norm_eps", 1e-5),
]
RESAMPLER_SETTINGS: list[Row] = [
    Setting("resampler_n_latents", "latents", 64),
    Setting("resampler_depth", "depth", 6),
    Setting("resampler_n_heads", "heads", 16),
    Setting("resampler_head_dim", "head_dim", 96),
    Setting("qk_layer_norms_perceiver", "qk_norm", False),
    Unused("use_resampler"),  # that of the whole counts
]
GATES: dict[str, Literal["scalar", "vector"]] = {"float": "scalar", "vector": "vector"}
CROSS_ATTENTION_SETTINGS: list[Row] = [
    Setting("cross_layer_interval", "cross_attention_interval", 1),
    Setting("qk_layer_norms", "qk_norm", False),
    Setting("alpha_type", "gates", "float", accept=one_of(GATES)),
]
# The language model of IDEFICS is a Llama with as many key heads as query heads.
LANGUAGE_SETTINGS: list[Row] = [
    *(row for row in llama.COMMON_SETTINGS if row.published != "tie_word_embeddings"),
    Setting("additional_vocab_size", "added_tokens", 0, accept=integer(0)),
    Fixed("use_resampler", True),
    Fixed("tie_word_embeddings", False),
    # No setting of the class, but its rotary positions read it.
    Derived("head_dim", lambda fields: fields["width"] // fields["heads"]),
]


def read_idefics(folder: Path | str) -> tuple[FlamingoConfig, VisionTransformerConfig, DecoderConfig, int]:
    """Return the configs of a published Flamingo: added layers, vision encoder, language model, number of added tokens.

    Raises CourseError when the folder holds another model, or one without a resampler.
    """
    return _parse_idefics(pretrained.read_config(folder, "idefics"))


def _parse_idefics(config: Mapping[str, Any]) -> tuple[FlamingoConfig, VisionTransformerConfig, DecoderConfig, int]:
    if not config.get("use_resampler", False):
        raise CourseError("the model has no perceiver resampler (use_resampler); models without one are not supported")
    vision_fields = read_settings(VISION_SETTINGS, read_part(config, "vision_config") or {}, "vision_config")
    vision = build_config(clip_vision_config, **vision_fields)
    resampler = read_settings(RESAMPLER_SETTINGS, read_part(config, "perceiver_config") or {}, "perceiver_config")
    inserted = read_settings(CROSS_ATTENTION_SETTINGS, config)
    inserted["gates"] = GATES[inserted["gates"]]
    language, added_tokens = _language(config)
    if language.depth % inserted["cross_attention_interval"]:
        raise CourseError(
            f"cross_layer_interval {inserted['cross_attention_interval']} does not divide the {language.depth} blocks "
            "(num_hidden_layers)"
        )
    resampler_config = ResamplerConfig(width=vision.width, **resampler)
    return build_config(FlamingoConfig, resampler=resampler_config, **inserted), vision, language, added_tokens


def _language(config: Mapping[str, Any]) -> tuple[DecoderConfig, int]:
    """Return the language model's config, whose vocabulary includes the added tokens, and the number of these."""
    fields = read_settings(LANGUAGE_SETTINGS, config)
    added_tokens = fields.pop("added_tokens")
    fields["vocab_size"] += added_tokens
    if fields["width"] % (2 * fields["heads"]):
        raise CourseError(
            f"hidden_size {fields['width']} does not divide into {fields['heads']} num_attention_heads of an even "
            "dimension, which rotary positions need"
        )
    rotary = read_rotary(config, fields["max_positions"])
    return DecoderConfig(**fields, **rotary, kv_heads=fields["heads"]), added_tokens


def write_idefics(
    config: FlamingoConfig, vision_encoder: nn.Module, language: DecoderConfig, added_tokens: int
) -> dict[str, Any]:
    """Return the published settings of a Flamingo. Raises CourseError when no published class supports it."""
    if not isinstance(vision_encoder, VisionTransformer):
        raise CourseError(
            f"a published Flamingo has CLIP's vision encoder; this one is a {type(vision_encoder).__name__}"
        )
    if not 0 <= added_tokens < language.vocab_size:
        raise CourseError(
            f"added_tokens is {added_tokens}; expected a part of the vocabulary, 0 to {language.vocab_size - 1} tokens"
        )
    if config.gates == "none":
        raise CourseError("no published class is a Flamingo with no gates; other programs cannot read it")
    vision = vision_encoder.config
    fields = asdict(language) | {"vocab_size": language.vocab_size - added_tokens, "added_tokens": added_tokens}
    gates = next(name for name, gates in GATES.items() if gates == config.gates)
    settings = {
        "model_type": "idefics",
        "architectures": ["IdeficsForVisionText2Text"],
        **write_settings(LANGUAGE_SETTINGS, fields),
        **write_settings(CROSS_ATTENTION_SETTINGS, asdict(config) | {"gates": gates}),
        "rope_parameters": write_rotary(language),
        "vision_config": {"model_type": "idefics_vision", **write_settings(VISION_SETTINGS, asdict(vision))},
        "perceiver_config": {
            "model_type": "idefics_perciever",  # spelled so in the published class
            "use_resampler": True,
            **write_settings(RESAMPLER_SETTINGS, asdict(config.resampler)),
        },
    }
    read_config, read_vision, read_language, _ = _parse_idefics(settings)
    require_same(config, read_config)
    require_same(vision, read_vision)
    require_same(
        replace(language, head_dim=language.width_per_head),
        replace(read_language, head_dim=read_language.width_per_head),
    )
    return settings
