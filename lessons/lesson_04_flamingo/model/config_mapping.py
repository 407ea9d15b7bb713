"""The settings of published `IdeficsForVisionText2Text` checkpoints, `config.json`, in both directions."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from lessons.lesson_00_foundations.decoder.model import language_model as llama
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from lessons.lesson_02_clip.model import clip_vision_config
from lessons.lesson_04_flamingo.model.config import FlamingoConfig, ResamplerConfig
from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import Fixed, Setting, read_settings, write_settings
from shared.transformer import DecoderConfig

VISION_SETTINGS = [
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
RESAMPLER_SETTINGS = [
    Setting("resampler_n_latents", "latents", 64),
    Setting("resampler_depth", "depth", 6),
    Setting("resampler_n_heads", "heads", 16),
    Setting("resampler_head_dim", "head_dim", 96),
    Setting("qk_layer_norms_perceiver", "qk_norm", False),
]
INSERTED_SETTINGS = [
    Setting("cross_layer_interval", "every", 1),
    Setting("qk_layer_norms", "qk_norm", False),
]
# IDEFICS' language model is a Llama with a key head for every query head.
LANGUAGE_SETTINGS = [
    setting
    for setting in llama.SETTINGS
    if setting.published not in ("attention_bias", "mlp_bias", "tie_word_embeddings")
] + [Fixed("use_resampler", True), Fixed("tie_word_embeddings", False)]
GATES = {"float": "scalar", "vector": "vector"}


def read_idefics(folder: Path | str) -> tuple[FlamingoConfig, VisionTransformerConfig, DecoderConfig, int]:
    """Our configs of a published Flamingo, its eye and its language model, and how many tokens were added to the latter's.

    Raises CourseError when the folder holds another kind of model, or one without a resampler.
    """
    config = pretrained.read_config(folder)
    if config.get("model_type") != "idefics":
        raise CourseError(f"{folder} holds a model of type {config.get('model_type')!r}; this reads idefics")
    if not config.get("use_resampler", False):
        raise CourseError(
            f"{folder} holds a model without a perceiver resampler (use_resampler); this reads those with one"
        )
    vision = clip_vision_config(**read_settings(VISION_SETTINGS, config.get("vision_config") or {}))
    resampler = read_settings(RESAMPLER_SETTINGS, config.get("perceiver_config") or {})
    kind = config.get("alpha_type", "float")
    if kind not in GATES:
        raise CourseError(f"alpha_type is {kind!r} in {folder}, supported are {', '.join(GATES)}")
    ours = FlamingoConfig(
        resampler=ResamplerConfig(width=vision.width, **resampler),
        gates=GATES[kind],
        **read_settings(INSERTED_SETTINGS, config),
    )
    added = config.get("additional_vocab_size", 0)
    return ours, vision, _language(config, added), added


def _language(config: Mapping[str, Any], added: int) -> DecoderConfig:
    ours = read_settings(LANGUAGE_SETTINGS, config)
    rotary = config.get("rope_parameters") or {}
    return DecoderConfig(
        **ours | {"vocab_size": ours["vocab_size"] + added},
        kv_heads=ours["heads"],
        rotary_base=float(rotary.get("rope_theta") or config.get("rope_theta") or 10_000.0),
    )


def write_idefics(config: FlamingoConfig, vision: nn.Module, language: DecoderConfig, added: int) -> dict[str, Any]:
    """The published settings of ours. Raises CourseError when no published class is such a model."""
    _check_published(config, vision, language)
    ours = asdict(language) | {"vocab_size": language.vocab_size - added}
    return {
        "model_type": "idefics",
        "architectures": ["IdeficsForVisionText2Text"],
        **write_settings(LANGUAGE_SETTINGS, ours),
        **write_settings(INSERTED_SETTINGS, asdict(config)),
        "additional_vocab_size": added,
        "alpha_type": next(theirs for theirs, mine in GATES.items() if mine == config.gates),
        "rope_parameters": {"rope_type": "default", "rope_theta": language.rotary_base},
        "vision_config": {"model_type": "idefics_vision", **write_settings(VISION_SETTINGS, asdict(vision.config))},
        "perceiver_config": {
            "model_type": "idefics_perciever",  # so spelled, for ever
            "use_resampler": True,
            **write_settings(RESAMPLER_SETTINGS, asdict(config.resampler)),
        },
    }


def _check_published(config: FlamingoConfig, vision: nn.Module, language: DecoderConfig) -> None:
    problems = []
    if config.gates == "none":
        problems.append("no gates")
    if language.kv_heads != language.heads or language.head_dim not in (None, language.width // language.heads):
        problems.append(f"{language.kv_heads} key heads for {language.heads} query heads, {language.head_dim} wide")
    if language.tied or language.rotary_scaling is not None:
        problems.append("a tied head or scaled rotary positions")
    if not isinstance(vision, VisionTransformer) or vision.config != _plain(vision.config):
        problems.append(f"an eye that is no CLIP tower ({type(vision).__name__})")
    if problems:
        raise CourseError(
            f"no published class is a Flamingo with {', '.join(problems)}, so no other program could read it"
        )


def _plain(config: VisionTransformerConfig) -> VisionTransformerConfig:
    return clip_vision_config(**{setting.field: getattr(config, setting.field) for setting in VISION_SETTINGS})
