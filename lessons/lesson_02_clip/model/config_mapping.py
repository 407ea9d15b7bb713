"""Map the `config.json` of published checkpoints to our configs, and back; weight_names.py maps the weights.

Supported are `CLIPModel`, `CLIPVisionModel`, `CLIPTextModel`, `SiglipModel` and `SiglipVisionModel`, in the folder
layout of the Hugging Face hub.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lessons.lesson_01_vit.model import VisionTransformerConfig
from lessons.lesson_02_clip.model.config import (
    CLIPConfig,
    SigLIPConfig,
    TextEncoderConfig,
    clip_vision_config,
    siglip_vision_config,
)
from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import Fixed, Setting, read_settings, write_settings

# The settings of both families, with CLIP's defaults for those that a config leaves out.
CLIP_VISION = [
    Setting("image_size", "image_size", 224),
    Setting("patch_size", "patch_size", 32),
    Setting("num_channels", "channels", 3),
    Setting("hidden_size", "width", 768),
    Setting("num_hidden_layers", "depth", 12),
    Setting("num_attention_heads", "heads", 12),
    Setting("intermediate_size", "mlp_dim", 3072),
    Setting("hidden_act", "activation", "quick_gelu"),
    Setting("layer_norm_eps", "norm_eps", 1e-5),
]
CLIP_TEXT = [
    Setting("vocab_size", "vocab_size", 49_408),
    Setting("max_position_embeddings", "context_length", 77),
    Setting("hidden_size", "width", 512),
    Setting("num_hidden_layers", "depth", 12),
    Setting("num_attention_heads", "heads", 8),
    Setting("intermediate_size", "mlp_dim", 2048),
    Setting("hidden_act", "activation", "quick_gelu"),
    Setting("layer_norm_eps", "norm_eps", 1e-5),
]
SIGLIP_DEFAULTS = {"activation": "gelu_pytorch_tanh", "norm_eps": 1e-6}
SIGLIP_VISION_DEFAULTS = SIGLIP_DEFAULTS | {"patch_size": 16}
SIGLIP_TEXT_DEFAULTS = SIGLIP_DEFAULTS | {
    "vocab_size": 32_000,
    "context_length": 64,
    "width": 768,
    "heads": 12,
    "mlp_dim": 3072,
}


def _with_defaults(settings: list[Setting], defaults: Mapping[str, Any]) -> list[Setting]:
    return [replace(setting, default=defaults.get(setting.field, setting.default)) for setting in settings]


SIGLIP_VISION = _with_defaults(CLIP_VISION, SIGLIP_VISION_DEFAULTS)
SIGLIP_TEXT = _with_defaults(CLIP_TEXT, SIGLIP_TEXT_DEFAULTS)
END_TOKEN = 49_407

# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_clip_config(folder: Path | str) -> CLIPConfig:
    """Return our config of a published CLIP. Raises CourseError when the folder holds another model."""
    config = _read(folder, "clip")
    image, text = _encoder_settings(config, "vision"), _encoder_settings(config, "text")
    return CLIPConfig(_clip_vision(image), _clip_text(text), config.get("projection_dim") or 512)


def read_siglip_config(folder: Path | str) -> SigLIPConfig:
    """Return our config of a published SigLIP. Raises CourseError when the folder holds another model."""
    config = _read(folder, "siglip")
    image, text = _siglip_vision(_encoder_settings(config, "vision")), _encoder_settings(config, "text")
    fields = read_settings(SIGLIP_TEXT, text)
    projection = text.get("projection_size") or fields["width"]
    if projection != image.width:
        raise CourseError(
            f"{folder}: captions are projected to dimension {projection}, but image vectors have dimension "
            f"{image.width}; expected the same dimension"
        )
    return SigLIPConfig(image, TextEncoderConfig(**fields, causal=False, pooling="last"))


def read_vision_config(folder: Path | str) -> VisionTransformerConfig:
    """Return our config of a published image encoder. Raises CourseError when the folder holds another model."""
    config = _read(folder, "clip_vision_model", "siglip_vision_model")
    return _clip_vision(config) if config["model_type"] == "clip_vision_model" else _siglip_vision(config)


def read_text_config(folder: Path | str) -> TextEncoderConfig:
    """Return our config of a published CLIP text encoder. Raises CourseError when the folder holds another model."""
    return _clip_text(_read(folder, "clip_text_model"))


def _read(folder: Path | str, *model_types: str) -> dict[str, Any]:
    config = pretrained.read_config(folder)
    if config.get("model_type") not in model_types:
        raise CourseError(
            f"{folder} holds a model of type {config.get('model_type')!r}; expected {' or '.join(model_types)}"
        )
    return config


def _encoder_settings(config: Mapping[str, Any], encoder: str) -> dict[str, Any]:
    """Return the settings of one encoder; configs of 2021 hold them twice, and the values in `…_dict` count."""
    return {**(config.get(f"{encoder}_config") or {}), **(config.get(f"{encoder}_config_dict") or {})}


def _clip_vision(config: Mapping[str, Any]) -> VisionTransformerConfig:
    return clip_vision_config(**read_settings(CLIP_VISION, config))


def _siglip_vision(config: Mapping[str, Any]) -> VisionTransformerConfig:
    return siglip_vision_config(**read_settings([*SIGLIP_VISION, Fixed("vision_use_head", True)], config))


def _clip_text(config: Mapping[str, Any]) -> TextEncoderConfig:
    # Published configs name 2 as the end token, which is wrong: it stands for the largest id, as in CLIP's own code.
    end = config.get("eos_token_id", END_TOKEN)
    return TextEncoderConfig(**read_settings(CLIP_TEXT, config), end_token=None if end == 2 else end)


# ── Writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_clip_config(config: CLIPConfig) -> dict[str, Any]:
    """Return the published settings of our config. Raises CourseError when no published class fits it."""
    if config.loss != "info-nce":
        raise CourseError(f"a published CLIP has no logit bias, but this one was trained with the {config.loss} loss")
    image = write_vision_config(config.image) | {"projection_dim": config.embedding}
    text = write_text_config(config.text) | {"projection_dim": config.embedding}
    if image["model_type"] != "clip_vision_model":
        raise CourseError("a published CLIP has CLIP's image encoder, with a class token; save this model as a SigLIP")
    return _combine("clip", "CLIPModel", image, text) | {"projection_dim": config.embedding}


def write_siglip_config(config: SigLIPConfig) -> dict[str, Any]:
    """Return the published settings of our config. Raises CourseError when no published class fits it."""
    image, text = write_vision_config(config.image), config.text
    if image["model_type"] != "siglip_vision_model" or text.causal or text.pooling != "last":
        raise CourseError(
            "a published SigLIP pools patches by attention, and its text encoder is not causal and pools the last "
            f"token; given: {config}"
        )
    settings = {"model_type": "siglip_text_model", **write_settings(SIGLIP_TEXT, asdict(text))}
    return _combine("siglip", "SiglipModel", image, settings | {"projection_size": config.image.width})


def published_vision_class(config: VisionTransformerConfig) -> str | None:
    """Return "CLIPVisionModel" or "SiglipVisionModel", whichever fits the config, or None."""
    fields = {setting.field: getattr(config, setting.field) for setting in CLIP_VISION}
    if isinstance(config.image_size, int):
        if config == clip_vision_config(**fields):
            return "CLIPVisionModel"
        if config == siglip_vision_config(**fields):
            return "SiglipVisionModel"
    return None


def write_vision_config(config: VisionTransformerConfig) -> dict[str, Any]:
    """Return the published settings of an image encoder. Raises CourseError when no published class fits it."""
    architecture, fields = published_vision_class(config), asdict(config)
    if architecture == "CLIPVisionModel":
        header = {"model_type": "clip_vision_model", "architectures": [architecture]}
        return {**header, **write_settings(CLIP_VISION, fields)}
    if architecture == "SiglipVisionModel":
        header = {"model_type": "siglip_vision_model", "architectures": [architecture]}
        return {**header, "vision_use_head": True, **write_settings(SIGLIP_VISION, fields)}
    raise CourseError(
        "no published class fits this image encoder, so no other program could read the checkpoint. Published are "
        "CLIP's (square, class token, norm before the first block, no patch bias) and SigLIP's (square, attention "
        f"pooling, patch bias). Given: {config}"
    )


def write_text_config(config: TextEncoderConfig) -> dict[str, Any]:
    """Return the published settings of CLIP's text encoder. Raises CourseError when no published class fits it."""
    if not config.causal or config.pooling != "end":
        raise CourseError(f"CLIP's text encoder is causal and pools at the end token; given: {config}")
    end = 2 if config.end_token is None else config.end_token
    header = {"model_type": "clip_text_model", "architectures": ["CLIPTextModel"], "eos_token_id": end}
    return {**header, **write_settings(CLIP_TEXT, asdict(config))}


def _combine(model_type: str, architecture: str, image: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
    image.pop("architectures", None)
    text.pop("architectures", None)
    return {
        "model_type": model_type,
        "architectures": [architecture],
        "vision_config": image,
        "text_config": text,
    }
