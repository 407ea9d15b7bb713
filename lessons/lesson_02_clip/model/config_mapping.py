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
from shared.pretrained import (
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
from shared.pretrained.setting_values import integer, one_of, optional
from shared.transformer.block import ACTIVATIONS

# The settings of both families, with CLIP's defaults for those that a config leaves out. Images are square.
CLIP_VISION: list[Setting] = [
    Setting("image_size", "image_size", 224),
    Setting("patch_size", "patch_size", 32),
    Setting("num_channels", "channels", 3),
    Setting("hidden_size", "width", 768),
    Setting("num_hidden_layers", "depth", 12),
    Setting("num_attention_heads", "heads", 12),
    Setting("intermediate_size", "mlp_dim", 3072),
    Setting("hidden_act", "activation", "quick_gelu", accept=one_of(ACTIVATIONS)),
    Setting("layer_norm_eps", "norm_eps", 1e-5),
]
CLIP_TEXT: list[Setting] = [
    Setting("vocab_size", "vocab_size", 49_408),
    Setting("max_position_embeddings", "context_length", 77),
    Setting("hidden_size", "width", 512),
    Setting("num_hidden_layers", "depth", 12),
    Setting("num_attention_heads", "heads", 8),
    Setting("intermediate_size", "mlp_dim", 2048),
    Setting("hidden_act", "activation", "quick_gelu", accept=one_of(ACTIVATIONS)),
    Setting("layer_norm_eps", "norm_eps", 1e-5),
]
# The encoders of `CLIPModel` have this setting too, but only the one of the whole counts.
PROJECTION: list[Row] = [Unused("projection_dim")]
END_TOKEN: list[Row] = [Setting("eos_token_id", "end_token", 49_407, accept=integer(0))]
CLIP_SETTINGS: list[Row] = [Setting("projection_dim", "embedding", 512)]

SIGLIP_DEFAULTS = {"activation": "gelu_pytorch_tanh", "norm_eps": 1e-6}
SIGLIP_VISION_DEFAULTS = SIGLIP_DEFAULTS | {"patch_size": 16}
SIGLIP_TEXT_DEFAULTS = SIGLIP_DEFAULTS | {
    "vocab_size": 32_000,
    "context_length": 64,
    "width": 768,
    "heads": 12,
    "mlp_dim": 3072,
}


def _with_defaults(settings: list[Setting], defaults: Mapping[str, Any]) -> list[Row]:
    return [replace(setting, default=defaults.get(setting.field, setting.default)) for setting in settings]


SIGLIP_VISION: list[Row] = [*_with_defaults(CLIP_VISION, SIGLIP_VISION_DEFAULTS), Fixed("vision_use_head", True)]
SIGLIP_TEXT = _with_defaults(CLIP_TEXT, SIGLIP_TEXT_DEFAULTS)
SIGLIP_PROJECTION: list[Row] = [Setting("projection_size", "projection", None, accept=optional(integer()))]

# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_clip_config(folder: Path | str) -> CLIPConfig:
    """Return our config of a published CLIP. Raises CourseError when the folder holds another model."""
    return _parse_clip(pretrained.read_config(folder, "clip"))


def read_siglip_config(folder: Path | str) -> SigLIPConfig:
    """Return our config of a published SigLIP. Raises CourseError when the folder holds another model."""
    return _parse_siglip(pretrained.read_config(folder, "siglip"))


def read_vision_config(folder: Path | str) -> VisionTransformerConfig:
    """Return our config of a published image encoder. Raises CourseError when the folder holds another model."""
    config = pretrained.read_config(folder, "clip_vision_model", "siglip_vision_model")
    return parse_clip_vision(config) if config["model_type"] == "clip_vision_model" else _parse_siglip_vision(config)


def read_text_config(folder: Path | str) -> TextEncoderConfig:
    """Return our config of a published CLIP text encoder. Raises CourseError when the folder holds another model."""
    return _parse_clip_text(pretrained.read_config(folder, "clip_text_model"))


def _parse_clip(config: Mapping[str, Any]) -> CLIPConfig:
    return build_config(
        CLIPConfig,
        image=parse_clip_vision(_encoder_settings(config, "vision")),
        text=_parse_clip_text(_encoder_settings(config, "text")),
        **read_settings(CLIP_SETTINGS, config),
    )


def _encoder_settings(config: Mapping[str, Any], encoder: str) -> dict[str, Any]:
    """Return the settings of one encoder.

    Configs of 2021 hold them twice, and `…_config_dict` alone counts: what it leaves out has the class's default.
    """
    dictionary = read_part(config, f"{encoder}_config_dict")
    return (read_part(config, f"{encoder}_config") or {}) if dictionary is None else dictionary


def parse_clip_vision(config: Mapping[str, Any]) -> VisionTransformerConfig:
    """Return our config of the published settings of CLIP's image encoder. Raises CourseError for unsupported ones."""
    return build_config(clip_vision_config, **read_settings([*CLIP_VISION, *PROJECTION], config, "vision_config"))


def _parse_clip_text(config: Mapping[str, Any]) -> TextEncoderConfig:
    fields = read_settings([*CLIP_TEXT, *PROJECTION, *END_TOKEN], config, "text_config")
    if fields["end_token"] == 2:
        # Published configs name 2, which is wrong: it stands for the largest id, as in CLIP's own code.
        fields["end_token"] = None
    elif fields["end_token"] >= fields["vocab_size"]:
        raise CourseError(
            f"eos_token_id is {fields['end_token']} in text_config, which is no token id of a vocabulary (vocab_size) "
            f"of {fields['vocab_size']}"
        )
    return build_config(TextEncoderConfig, **fields)


def _parse_siglip(config: Mapping[str, Any]) -> SigLIPConfig:
    read_settings([], config)
    image = _parse_siglip_vision(read_part(config, "vision_config") or {})
    fields = read_settings([*SIGLIP_TEXT, *SIGLIP_PROJECTION], read_part(config, "text_config") or {}, "text_config")
    projection = fields.pop("projection") or fields["width"]
    if projection != image.width:
        raise CourseError(
            f"captions are projected to dimension {projection} (projection_size, or the text encoder's hidden_size), "
            f"but image vectors have dimension {image.width} (hidden_size); expected the same dimension"
        )
    text = build_config(TextEncoderConfig, **fields, causal=False, pooling="last")
    return build_config(SigLIPConfig, image=image, text=text)


def _parse_siglip_vision(config: Mapping[str, Any]) -> VisionTransformerConfig:
    return build_config(siglip_vision_config, **read_settings(SIGLIP_VISION, config, "vision_config"))


# ── Writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_clip_config(config: CLIPConfig) -> dict[str, Any]:
    """Return the published settings of our config. Raises CourseError when no published class fits it."""
    if config.loss != "info-nce":
        raise CourseError(f"a published CLIP has no logit bias, but this one was trained with the {config.loss} loss")
    image = write_vision_config(config.image) | {"projection_dim": config.embedding}
    text = write_text_config(config.text) | {"projection_dim": config.embedding}
    if image["model_type"] != "clip_vision_model":
        raise CourseError("a published CLIP has CLIP's image encoder, with a class token; save this model as a SigLIP")
    settings = _combine("clip", "CLIPModel", image, text) | write_settings(CLIP_SETTINGS, asdict(config))
    require_same(config, _parse_clip(settings))
    return settings


def write_siglip_config(config: SigLIPConfig) -> dict[str, Any]:
    """Return the published settings of our config. Raises CourseError when no published class fits it."""
    image, text = write_vision_config(config.image), write_settings(SIGLIP_TEXT, asdict(config.text))
    text |= {"model_type": "siglip_text_model", "projection_size": config.image.width}
    settings = _combine("siglip", "SiglipModel", image, text)
    read = _parse_siglip(settings)
    require_same(config.image, read.image)
    require_same(config.text, read.text)
    return settings


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
        return {**header, **write_settings(SIGLIP_VISION, fields)}
    raise CourseError(
        "no published class fits this image encoder, so no other program could read the checkpoint. Published are "
        "CLIP's (square, class token, norm before the first block, no patch bias) and SigLIP's (square, attention "
        f"pooling, patch bias). Given: {config}"
    )


def write_text_config(config: TextEncoderConfig) -> dict[str, Any]:
    """Return the published settings of CLIP's text encoder. Raises CourseError when no published class fits it."""
    end = 2 if config.end_token is None else config.end_token
    header = {"model_type": "clip_text_model", "architectures": ["CLIPTextModel"], "eos_token_id": end}
    settings = {**header, **write_settings(CLIP_TEXT, asdict(config))}
    require_same(config, _parse_clip_text(settings))
    return settings


def _combine(model_type: str, architecture: str, image: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
    image.pop("architectures", None)
    text.pop("architectures", None)
    return {
        "model_type": model_type,
        "architectures": [architecture],
        "vision_config": image,
        "text_config": text,
    }
