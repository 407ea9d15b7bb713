"""Published LLaVA-OneVision checkpoints: configs and weight names in both directions.

Read and written: `LlavaOnevisionForConditionalGeneration` with `SiglipVisionModel` as the vision encoder and
`Qwen2ForCausalLM` or `LlamaForCausalLM` as the language model.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from lessons.lesson_00_foundations.decoder.model import config_mapping as llama
from lessons.lesson_00_foundations.decoder.model import weight_names as language_weight_names
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from lessons.lesson_02_clip.model import siglip_vision_config
from lessons.lesson_02_clip.model.config_mapping import SIGLIP_VISION
from lessons.lesson_02_clip.model.weight_names import ATTENTION_POOLING, vision_weight_names
from lessons.lesson_05_llava.model import config_mapping as llava
from lessons.lesson_05_llava.model.config_mapping import vision_language_weight_names
from lessons.lesson_08_onevision.model.pooling import Size
from lessons.lesson_08_onevision.model.sequence import PlaceholderIds
from lessons.lesson_08_onevision.model.tiling import PINPOINTS, VisualLayout
from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import (
    Fixed,
    Row,
    Setting,
    Unused,
    WeightNames,
    build_config,
    read_part,
    read_settings,
    require_model_type,
    require_same,
    write_settings,
)
from shared.pretrained.setting_values import integer
from shared.transformer import DecoderConfig

MODEL_TYPE = "llava_onevision"
MOST_TILES = 10_000
_ASPECT_RATIO = re.compile(r"anyres_max_([1-9]\d*)")


def _max_tiles(value: Any) -> int:
    """Accept "anyres_max_9" and the like: the number of tiles to whose patches an image is pooled."""
    match = _ASPECT_RATIO.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[1]) > MOST_TILES:
        raise ValueError(f"'anyres_max_' and a number of tiles from 1 to {MOST_TILES:,}")
    return int(match[1])


_LLAVA = {row.published: row for row in (*llava.SETTINGS, *llava.PINPOINT_SETTINGS) if isinstance(row, Setting)}


def accept_pinpoints(value: Any) -> tuple[Size, ...]:
    """Accept a list of [height, width], or null for the sizes of the paper."""
    return PINPOINTS if value is None else _LLAVA["image_grid_pinpoints"].convert(value)


SETTINGS: list[Row] = [
    Setting("image_token_index", "image", 151_646, also=("image_token_id",), accept=integer(0)),
    Setting("video_token_index", "video", 151_647, also=("video_token_id",), accept=integer(0)),
    _LLAVA["multimodal_projector_bias"],
    replace(_LLAVA["vision_feature_layer"], default=-1),
    _LLAVA["tie_word_embeddings"],
    Setting("image_grid_pinpoints", "pinpoints", PINPOINTS, accept=accept_pinpoints),
    Setting("vision_aspect_ratio", "max_tiles", 9, accept=_max_tiles),
    Fixed("projector_hidden_act", "gelu"),
    # SigLIP has no class token, and "default" would drop the first patch.
    Fixed("vision_feature_select_strategy", "full"),
]
VISION_SETTINGS: list[Row] = [
    *(row for row in SIGLIP_VISION if row.published != "vision_use_head"),
    # The features are the patches, so that the pooling head of a SigLIP has no effect.
    Unused("vision_use_head"),
]
# The class's vision encoder when a file has no vision_config: SigLIP so400m/14 at 384 pixels without its last block.
VISION_DEFAULTS = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}


@dataclass(frozen=True)
class OneVisionConfig:
    """The configs of the parts, and the keyword arguments of `LlavaOneVision`."""

    vision_encoder: VisionTransformerConfig
    language_model: DecoderConfig
    projector_bias: bool
    feature_layers: tuple[int, ...]
    placeholders: PlaceholderIds
    layout: VisualLayout


# ── Configs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_onevision_config(folder: Path | str) -> OneVisionConfig:
    """Read the config of a published folder. Raises CourseError when it holds another type of model."""
    return parse_onevision_config(pretrained.read_config(folder, MODEL_TYPE), folder)


def parse_onevision_config(config: Mapping[str, Any], folder: Path | str) -> OneVisionConfig:
    """Convert published settings to our config. Raises CourseError, naming the folder, for unsupported ones."""
    settings = read_settings(SETTINGS, config)
    vision = _vision_config(config, folder)
    text = {"model_type": "qwen2"} | (read_part(config, "text_config") or {})
    language = llama.parse_config(text, f"the text_config of {folder}")
    layers = settings["feature_layers"]
    layers = layers if isinstance(layers, tuple) else (layers,)
    if not all(-vision.depth - 1 <= layer <= vision.depth for layer in layers):
        raise CourseError(
            f"vision_feature_layer is {list(layers)} in {folder}; the vision encoder has the hidden states 0 to "
            f"{vision.depth}, or {-vision.depth - 1} to -1 from the end"
        )
    if settings["image"] == settings["video"]:
        raise CourseError(
            f"image_token_index and video_token_index are both {settings['image']} in {folder}; the published class "
            "tells images from videos by different token ids"
        )
    side = vision.image_sides[0]
    if any(height % side or width % side for height, width in settings["pinpoints"]):
        raise CourseError(
            f"image_grid_pinpoints is {settings['pinpoints']} in {folder}; expected multiples of the vision encoder's "
            f"image_size, {side} pixels"
        )
    layout = build_config(
        VisualLayout,
        tile_size=side,
        side=vision.grid[0],
        pinpoints=settings["pinpoints"],
        max_tiles=settings["max_tiles"],
    )
    tied = settings["tied"] or language.tied  # two settings, and either is enough
    placeholders = PlaceholderIds(settings["image"], settings["video"])
    language = replace(language, tied=tied)
    return OneVisionConfig(vision, language, settings["projector_bias"], layers, placeholders, layout)


def _vision_config(config: Mapping[str, Any], folder: Path | str) -> VisionTransformerConfig:
    vision = read_part(config, "vision_config")
    vision = VISION_DEFAULTS if vision is None else {"model_type": "siglip_vision_model"} | vision
    require_model_type(vision, f"the vision_config of {folder}", "siglip_vision_model")
    return build_config(siglip_vision_config, **read_settings(VISION_SETTINGS, vision, "vision_config"), pooling="mean")


def write_onevision_config(config: OneVisionConfig) -> dict[str, Any]:
    """Return the contents of a published config.json. Raises CourseError for a model that could not be read again."""
    layers, layout = config.feature_layers, config.layout
    values = {
        **config.placeholders._asdict(),
        "projector_bias": config.projector_bias,
        "feature_layers": layers[0] if len(layers) == 1 else list(layers),
        "tied": config.language_model.tied,
        "pinpoints": [list(size) for size in layout.pinpoints],
        "max_tiles": f"anyres_max_{layout.max_tiles}",
    }
    written = {
        "model_type": MODEL_TYPE,
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "vision_config": {
            "model_type": "siglip_vision_model",
            **write_settings(VISION_SETTINGS, asdict(config.vision_encoder)),
            "vision_use_head": False,
        },
        "text_config": llama.write_config(config.language_model),
        **write_settings(SETTINGS, values),
    }
    read = parse_onevision_config(written, "the written folder")
    # `llama.write_config` has compared the language model.
    require_same(replace(config, language_model=read.language_model), read)
    return written


def require_vision_transformer(vision_encoder: nn.Module) -> VisionTransformerConfig:
    """Return the config of a Vision Transformer. Raises CourseError for any other encoder."""
    if isinstance(vision_encoder, VisionTransformer):
        return vision_encoder.config
    raise CourseError(
        f"a published LLaVA-OneVision has SigLIP's vision encoder; this model has a {type(vision_encoder).__name__}"
    )


# ── Weight names ──────────────────────────────────────────────────────────────────────────────────────────────────────


def onevision_weight_names(config: OneVisionConfig) -> WeightNames:
    """Return the published name of each weight, in the three generations of files that LLaVA has too."""
    vision = vision_weight_names(config.vision_encoder)
    # The model has no pooling head, but a file may contain one.
    head = [name for rule in ATTENTION_POOLING for name in rule.patterns[0]]
    vision = WeightNames(
        vision.rules,
        also_read=vision.also_read,
        ignore=[*vision.ignore, *(prefix + name for name in head for prefix in ("", "vision_model."))],
    )
    return vision_language_weight_names(vision, llava.PROJECTOR, language_weight_names(config.language_model))
