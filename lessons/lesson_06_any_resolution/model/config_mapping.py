"""Map the `config.json` of published checkpoints to our configs, and back; weight_names.py maps the weights.

Supported are `Siglip2VisionModel` and `Siglip2Model`, in the folder layout of the Hugging Face hub. NaViT's own
checkpoints are not public.
"""

from collections.abc import Mapping
from dataclasses import asdict
from math import isqrt
from pathlib import Path
from typing import Any

from lessons.lesson_02_clip.model import TextEncoderConfig
from lessons.lesson_02_clip.model.config_mapping import SIGLIP_PROJECTION, SIGLIP_TEXT
from lessons.lesson_06_any_resolution.model.config import NaViTConfig, SigLIP2Config, siglip2_vision_config
from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import (
    Row,
    Setting,
    build_config,
    read_part,
    read_settings,
    require_same,
    write_settings,
)
from shared.pretrained.setting_values import integer, one_of
from shared.transformer.block import ACTIVATIONS

LARGEST_GRID = 10_000


def _square_number(value: Any) -> int:
    """Accept the number of positions of a square grid. (The published class cannot load others.)"""
    count = integer()(value)
    if isqrt(count) ** 2 != count or isqrt(count) > LARGEST_GRID:
        raise ValueError(f"the square of a whole number up to {LARGEST_GRID:,}: the learned positions form a square")
    return count


VISION: list[Row] = [
    Setting("hidden_size", "width", 768),
    Setting("num_hidden_layers", "depth", 12),
    Setting("num_attention_heads", "heads", 12),
    Setting("intermediate_size", "mlp_dim", 3072),
    Setting("num_channels", "channels", 3),
    Setting("patch_size", "patch_size", 16),
    Setting("num_patches", "num_patches", 256, accept=_square_number),
    Setting("hidden_act", "activation", "gelu_pytorch_tanh", accept=one_of(ACTIVATIONS)),
    Setting("layer_norm_eps", "norm_eps", 1e-6),
    Setting("vision_use_head", "pools", True),
]

# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_vision_config(folder: Path | str) -> NaViTConfig:
    """Return our config of a published image encoder. Raises CourseError when the folder holds another model."""
    return parse_vision_config(pretrained.read_config(folder, "siglip2_vision_model"))


def read_siglip2_config(folder: Path | str) -> SigLIP2Config:
    """Return our config of a published SigLIP 2. Raises CourseError when the folder holds another model."""
    return _parse_siglip2(pretrained.read_config(folder, "siglip2"))


def parse_vision_config(config: Mapping[str, Any]) -> NaViTConfig:
    """Return our config of the published settings of an image encoder. Raises CourseError for unsupported ones."""
    fields = read_settings(VISION, config, "vision_config")
    grid_size = isqrt(fields.pop("num_patches"))
    pooling = "attention" if fields.pop("pools") else "none"
    return build_config(siglip2_vision_config, **fields, grid_size=grid_size, pooling=pooling)


def _parse_siglip2(config: Mapping[str, Any]) -> SigLIP2Config:
    read_settings([], config)
    image = parse_vision_config(read_part(config, "vision_config") or {})
    if image.pooling == "none":
        raise CourseError("vision_use_head is False in vision_config; SigLIP 2 compares pooled images, expected True")
    fields = read_settings([*SIGLIP_TEXT, *SIGLIP_PROJECTION], read_part(config, "text_config") or {}, "text_config")
    projection = fields.pop("projection") or fields["width"]
    if projection != image.width:
        raise CourseError(
            f"captions are projected to dimension {projection} (projection_size, or the text encoder's hidden_size), "
            f"but image vectors have dimension {image.width} (hidden_size); expected the same dimension"
        )
    text = build_config(TextEncoderConfig, **fields, causal=False, pooling="last")
    return build_config(SigLIP2Config, image=image, text=text)


# ── Writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_vision_config(config: NaViTConfig) -> dict[str, Any]:
    """Return the published settings of an image encoder. Raises CourseError when no published class fits it."""
    fields = asdict(config) | {"num_patches": config.grid_size**2, "pools": config.pooling == "attention"}
    header = {"model_type": "siglip2_vision_model", "architectures": ["Siglip2VisionModel"]}
    settings = {**header, **write_settings(VISION, fields)}
    require_same(config, parse_vision_config(settings))
    return settings


def write_siglip2_config(config: SigLIP2Config) -> dict[str, Any]:
    """Return the published settings of our config. Raises CourseError when no published class fits it."""
    image = write_vision_config(config.image)
    image.pop("architectures")
    text = write_settings(SIGLIP_TEXT, asdict(config.text))
    text |= {"model_type": "siglip2_text_model", "projection_size": config.image.width}
    settings = {
        "model_type": "siglip2",
        "architectures": ["Siglip2Model"],
        "vision_config": image,
        "text_config": text,
    }
    read = _parse_siglip2(settings)
    require_same(config.image, read.image)
    require_same(config.text, read.text)
    return settings
