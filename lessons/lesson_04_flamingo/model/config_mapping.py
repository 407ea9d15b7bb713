"""Read and write the `config.json` of published `IdeficsForVisionText2Text` checkpoints."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from torch import nn

from lessons.lesson_00_foundations.decoder.model import language_model as llama
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from lessons.lesson_02_clip.model import clip_vision_config
from lessons.lesson_04_flamingo.model.config import FlamingoConfig, ResamplerConfig
from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import Fixed, Setting, read_settings, write_settings
from shared.transformer import DecoderConfig

VISION_SETTINGS: list[Setting] = [
    Setting("embed_dim", "width", 768, also=("hidden_size",)),
    Setting("image_size", "image_size", 224),
    Setting("patch_size", "patch_size", 14),
    Setting("num_channels", "channels", 3),
    Setting("num_hidden_layers", "depth", 32),
    Setting("num_attention_heads", "heads", 16),
    Setting("intermediate_size", "mlp_dim", 5120),
    Setting("hidden_act", "activation", "gelu"),
    Setting("layer_norm_eps", "norm_eps", 1e-5),
]
RESAMPLER_SETTINGS: list[Setting | Fixed] = [
    Setting("resampler_n_latents", "latents", 64),
    Setting("resampler_depth", "depth", 6),
    Setting("resampler_n_heads", "heads", 16),
    Setting("resampler_head_dim", "head_dim", 96),
    Setting("qk_layer_norms_perceiver", "qk_norm", False),
]
CROSS_ATTENTION_SETTINGS: list[Setting | Fixed] = [
    Setting("cross_layer_interval", "cross_attention_interval", 1),
    Setting("qk_layer_norms", "qk_norm", False),
]
# The language model of IDEFICS is a Llama with as many key heads as query heads.
LANGUAGE_SETTINGS: list[Setting | Fixed] = [
    setting
    for setting in llama.SETTINGS
    if setting.published not in ("attention_bias", "mlp_bias", "tie_word_embeddings")
] + [Fixed("use_resampler", True), Fixed("tie_word_embeddings", False)]
GATES: dict[str, Literal["scalar", "vector"]] = {"float": "scalar", "vector": "vector"}


def read_idefics(folder: Path | str) -> tuple[FlamingoConfig, VisionTransformerConfig, DecoderConfig, int]:
    """Return the configs of a published Flamingo: added layers, vision encoder, language model, number of added tokens.

    Raises CourseError when the folder holds another model, or one without a resampler.
    """
    config = pretrained.read_config(folder)
    if config.get("model_type") != "idefics":
        raise CourseError(f"{folder} holds a model of type {config.get('model_type')!r}; expected idefics")
    if not config.get("use_resampler", False):
        raise CourseError(
            f"{folder} holds a model without a perceiver resampler (use_resampler), which is not supported"
        )
    vision = clip_vision_config(**read_settings(VISION_SETTINGS, config.get("vision_config") or {}))
    resampler = read_settings(RESAMPLER_SETTINGS, config.get("perceiver_config") or {})
    gates = config.get("alpha_type", "float")
    if gates not in GATES:
        raise CourseError(f"alpha_type is {gates!r} in {folder}; supported are {', '.join(GATES)}")
    flamingo = FlamingoConfig(
        resampler=ResamplerConfig(width=vision.width, **resampler),
        gates=GATES[gates],
        **read_settings(CROSS_ATTENTION_SETTINGS, config),
    )
    added_tokens = config.get("additional_vocab_size", 0)
    return flamingo, vision, _language(config, added_tokens), added_tokens


def _language(config: Mapping[str, Any], added_tokens: int) -> DecoderConfig:
    settings = read_settings(LANGUAGE_SETTINGS, config)
    rotary = config.get("rope_parameters") or {}
    return DecoderConfig(
        **settings | {"vocab_size": settings["vocab_size"] + added_tokens},
        kv_heads=settings["heads"],
        rotary_base=float(rotary.get("rope_theta") or config.get("rope_theta") or 10_000.0),
    )


def write_idefics(
    config: FlamingoConfig, vision_encoder: nn.Module, language: DecoderConfig, added_tokens: int
) -> dict[str, Any]:
    """Return the published settings of a Flamingo. Raises CourseError when no published class supports it."""
    vision = _published_vision(config, vision_encoder, language)
    settings = asdict(language) | {"vocab_size": language.vocab_size - added_tokens}
    return {
        "model_type": "idefics",
        "architectures": ["IdeficsForVisionText2Text"],
        **write_settings(LANGUAGE_SETTINGS, settings),
        **write_settings(CROSS_ATTENTION_SETTINGS, asdict(config)),
        "additional_vocab_size": added_tokens,
        "alpha_type": next(name for name, gates in GATES.items() if gates == config.gates),
        "rope_parameters": {"rope_type": "default", "rope_theta": language.rotary_base},
        "vision_config": {"model_type": "idefics_vision", **write_settings(VISION_SETTINGS, asdict(vision))},
        "perceiver_config": {
            "model_type": "idefics_perciever",  # spelled so in the published class
            "use_resampler": True,
            **write_settings(RESAMPLER_SETTINGS, asdict(config.resampler)),
        },
    }


def _published_vision(
    config: FlamingoConfig, vision_encoder: nn.Module, language: DecoderConfig
) -> VisionTransformerConfig:
    """Return the vision encoder's config, after checking that the published class supports the whole model."""
    problems = []
    if config.gates == "none":
        problems.append("no gates")
    if language.kv_heads != language.heads or language.head_dim not in (None, language.width // language.heads):
        problems.append(f"{language.kv_heads} key heads for {language.heads} query heads, {language.head_dim} wide")
    if language.tied or language.rotary_scaling is not None:
        problems.append("a tied output layer or scaled rotary positions")
    vision = vision_encoder.config if isinstance(vision_encoder, VisionTransformer) else None
    if vision is None or vision != _clip_config(vision):
        problems.append(f"a vision encoder that is not CLIP's ({type(vision_encoder).__name__})")
    if problems or vision is None:
        raise CourseError(f"no published class is a Flamingo with {', '.join(problems)}; other programs cannot read it")
    return vision


def _clip_config(config: VisionTransformerConfig) -> VisionTransformerConfig:
    return clip_vision_config(**{setting.field: getattr(config, setting.field) for setting in VISION_SETTINGS})
