"""The settings of published checkpoints, `config.json`, in both directions; the weights' names are in huggingface_names.py.

Read and written: `CLIPModel`, `CLIPVisionModel`, `CLIPTextModel`, `SiglipModel` and `SiglipVisionModel`, as they lie in
the folders that people download.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lessons.lesson_02_clip.model.config import CLIPConfig, SigLIPConfig, TextEncoderConfig, clip_vision_config
from lessons.lesson_02_clip.model.huggingface_names import clip_table, siglip_table, text_table, vision_weight_names
from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import Fixed, Setting, read_settings, write_settings

__all__ = [
    "clip_table",
    "read_clip_config",
    "read_siglip_config",
    "read_text_config",
    "read_vision_config",
    "siglip_table",
    "text_table",
    "vision_weight_names",
    "write_clip_config",
    "write_siglip_config",
    "write_text_config",
    "write_vision_config",
]

# What the two families share, with what each assumes where a config is silent.
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
    Setting("max_position_embeddings", "context", 77),
    Setting("hidden_size", "width", 512),
    Setting("num_hidden_layers", "depth", 12),
    Setting("num_attention_heads", "heads", 8),
    Setting("intermediate_size", "mlp_dim", 2048),
    Setting("hidden_act", "activation", "quick_gelu"),
    Setting("layer_norm_eps", "norm_eps", 1e-5),
]
OTHER_DEFAULTS = {
    "patch_size": 16,
    "vocab_size": 32_000,
    "context": 64,
    "activation": "gelu_pytorch_tanh",
    "norm_eps": 1e-6,
}
SIGLIP_VISION = [
    replace(setting, default=OTHER_DEFAULTS.get(setting.field, setting.default)) for setting in CLIP_VISION
]
SIGLIP_TEXT = [
    replace(setting, default=({"width": 768, "heads": 12, "mlp_dim": 3072} | OTHER_DEFAULTS).get(setting.field, setting.default))
    for setting in CLIP_TEXT
]  # fmt: skip
SIGLIP_EYE = {"class_token": False, "pooling": "attention", "patch_bias": True, "pre_norm": False}
END_TOKEN = 49_407

# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_clip_config(folder: Path | str) -> CLIPConfig:
    """Our config of a published CLIP. Raises CourseError when the folder holds another kind of model."""
    config = _read(folder, "clip")
    image, text = _part(config, "vision"), _part(config, "text")
    return CLIPConfig(_clip_vision(image), _clip_text(text), config.get("projection_dim") or 512)


def read_siglip_config(folder: Path | str) -> SigLIPConfig:
    """Our config of a published SigLIP. Raises CourseError when the folder holds another kind of model."""
    config = _read(folder, "siglip")
    image, text = _siglip_vision(_part(config, "vision")), _part(config, "text")
    ours = read_settings(SIGLIP_TEXT, text)
    meeting = text.get("projection_size") or ours["width"]
    if meeting != image.width:
        raise CourseError(f"the caption's vector is {meeting} wide and the picture's {image.width}; they cannot meet")
    return SigLIPConfig(image, TextEncoderConfig(**ours, causal=False, pooling="last"))


def read_vision_config(folder: Path | str) -> clip_vision_config:
    """Our config of a published image tower. Raises CourseError when the folder holds another kind of model."""
    config = _read(folder, "clip_vision_model", "siglip_vision_model")
    return _clip_vision(config) if config["model_type"] == "clip_vision_model" else _siglip_vision(config)


def read_text_config(folder: Path | str) -> TextEncoderConfig:
    """Our config of a published CLIP text tower. Raises CourseError when the folder holds another kind of model."""
    return _clip_text(_read(folder, "clip_text_model"))


def _read(folder: Path | str, *kinds: str) -> dict[str, Any]:
    config = pretrained.read_config(folder)
    if config.get("model_type") not in kinds:
        raise CourseError(f"{folder} holds a model of type {config.get('model_type')!r}; expected {' or '.join(kinds)}")
    return config


def _part(config: Mapping[str, Any], tower: str) -> dict[str, Any]:
    """One tower's settings. Configs of 2021 hold them twice, and of the two the `_dict` is the one that was meant."""
    return {**(config.get(f"{tower}_config") or {}), **(config.get(f"{tower}_config_dict") or {})}


def _clip_vision(config: Mapping[str, Any]) -> clip_vision_config:
    return clip_vision_config(**read_settings(CLIP_VISION, config))


def _siglip_vision(config: Mapping[str, Any]) -> clip_vision_config:
    ours = read_settings([*SIGLIP_VISION, Fixed("vision_use_head", True)], config)
    return clip_vision_config(**ours, **SIGLIP_EYE)


def _clip_text(config: Mapping[str, Any]) -> TextEncoderConfig:
    # Published configs name 2 as the end token, which it is not: it means "the largest number", as CLIP's own code does.
    end = config.get("eos_token_id", END_TOKEN)
    return TextEncoderConfig(**read_settings(CLIP_TEXT, config), end_token=None if end == 2 else end)


# ── Writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_clip_config(config: CLIPConfig) -> dict[str, Any]:
    """The published settings of our config. Raises CourseError when no published class is such a model."""
    image = write_vision_config(config.image) | {"projection_dim": config.embedding}
    text = write_text_config(config.text) | {"projection_dim": config.embedding}
    if image["model_type"] != "clip_vision_model":
        raise CourseError("a published CLIP has CLIP's own image tower, with a class token; save this one as a SigLIP")
    return _whole("clip", "CLIPModel", image, text) | {"projection_dim": config.embedding}


def write_siglip_config(config: SigLIPConfig) -> dict[str, Any]:
    """The published settings of our config. Raises CourseError when no published class is such a model."""
    image, text = write_vision_config(config.image), config.text
    if image["model_type"] != "siglip_vision_model" or text.causal or text.pooling != "last":
        raise CourseError(
            f"a published SigLIP pools patches by attention and reads captions in both directions to the last token: {config}"
        )
    ours = {"model_type": "siglip_text_model", **write_settings(SIGLIP_TEXT, asdict(text))}
    return _whole("siglip", "SiglipModel", image, ours | {"projection_size": config.image.width})


def write_vision_config(config: clip_vision_config) -> dict[str, Any]:
    """The published settings of an image tower. Raises CourseError when no published class is such a tower."""
    settings = [setting.field for setting in CLIP_VISION]
    chosen = {name: getattr(config, name) for name in settings}
    if isinstance(config.image_size, int):
        if config == clip_vision_config(**chosen):
            return {
                "model_type": "clip_vision_model",
                "architectures": ["CLIPVisionModel"],
                **write_settings(CLIP_VISION, chosen),
            }
        if config == clip_vision_config(**chosen, **SIGLIP_EYE):
            head = {"architectures": ["SiglipVisionModel"], "vision_use_head": True}
            return {"model_type": "siglip_vision_model", **head, **write_settings(SIGLIP_VISION, chosen)}
    raise CourseError(
        "no published class is a tower with these choices, so no other program could read it. Published are CLIP's (square, "
        f"class token, first norm, no patch bias) and SigLIP's (square, attention pooling, patch bias). Given: {config}"
    )  # fmt: skip


def write_text_config(config: TextEncoderConfig) -> dict[str, Any]:
    """The published settings of CLIP's text tower. Raises CourseError when no published class is such a tower."""
    if not config.causal or config.pooling != "end":
        raise CourseError(f"CLIP's text tower is causal and pools at the end token; given: {config}")
    end = 2 if config.end_token is None else config.end_token
    kind = {"model_type": "clip_text_model", "architectures": ["CLIPTextModel"], "eos_token_id": end}
    return {**kind, **write_settings(CLIP_TEXT, asdict(config))}


def _whole(kind: str, architecture: str, image: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
    image.pop("architectures", None)
    text.pop("architectures", None)
    return {"model_type": kind, "architectures": [architecture], "vision_config": image, "text_config": text}
