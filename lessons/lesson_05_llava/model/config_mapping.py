"""Published LLaVA checkpoints: configs and weight names in both directions.

Read and written: `LlavaForConditionalGeneration` and `LlavaNextForConditionalGeneration` with `CLIPVisionModel` as the
vision encoder and `LlamaForCausalLM` or `Qwen2ForCausalLM` as the language model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from lessons.lesson_00_foundations.decoder.model import config_mapping as llama
from lessons.lesson_00_foundations.decoder.model import weight_names as language_weight_names
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from lessons.lesson_02_clip.model.config_mapping import parse_clip_vision, published_vision_class, write_vision_config
from lessons.lesson_02_clip.model.weight_names import vision_weight_names
from lessons.lesson_05_llava.model.anyres import PINPOINTS, Size
from lessons.lesson_05_llava.model.projector import Projector
from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import (
    Checkpoint,
    Fixed,
    Rename,
    Row,
    Rule,
    Setting,
    Tie,
    WeightNames,
    read_part,
    read_settings,
    require_model_type,
    require_same,
    setting_values,
    with_prefix,
    write_settings,
)
from shared.transformer import DecoderConfig

STRATEGIES = {"default": False, "full": True}
"""Published strategy → whether the class token is kept."""


def _feature_layers(value: Any) -> tuple[int, ...]:
    """Accept the index of one hidden state or of several."""
    layers = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not layers or not all(isinstance(layer, int) and not isinstance(layer, bool) for layer in layers):
        raise ValueError("the index of a hidden state, or a list of them")
    return layers


def _pinpoints(value: Any) -> tuple[Size, ...]:
    """Accept a list of [height, width], or null for the sizes of the paper."""
    if value is None:
        return PINPOINTS
    sizes = [setting_values.sides(size) for size in value] if isinstance(value, list | tuple) else []
    pairs = tuple(size for size in sizes if isinstance(size, tuple))
    if not pairs or len(pairs) < len(sizes):
        raise ValueError("a list of [height, width] in pixels")
    return pairs


SETTINGS: list[Row] = [
    Setting("image_token_index", "image_token_id", 32_000, also=("image_token_id",), accept=setting_values.integer(0)),
    Setting("multimodal_projector_bias", "projector_bias", True),
    Setting("vision_feature_layer", "feature_layers", -2, accept=_feature_layers),
    Setting("vision_feature_select_strategy", "strategy", "default", accept=setting_values.one_of(STRATEGIES)),
    Setting("tie_word_embeddings", "tied", False),
    Fixed("projector_hidden_act", "gelu"),
]
PINPOINT_SETTINGS: list[Row] = [Setting("image_grid_pinpoints", "pinpoints", PINPOINTS, accept=_pinpoints)]
# The class's default vision encoder when a file has no vision_config: CLIP ViT-L/14 at 336 pixels.
LARGE = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
ARCHITECTURES = {"llava": "LlavaForConditionalGeneration", "llava_next": "LlavaNextForConditionalGeneration"}


@dataclass(frozen=True)
class LlavaConfig:
    """The configs of the parts, and the keyword arguments of `Llava`."""

    vision_encoder: VisionTransformerConfig
    language_model: DecoderConfig
    projector_bias: bool
    choices: dict[str, Any]


# ── Configs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_llava_config(folder: Path | str, model_type: str) -> LlavaConfig:
    """Read the config of a published folder. Raises CourseError when it holds another type of model."""
    config = pretrained.read_config(folder, model_type)
    llava = parse_llava_config(config, folder)
    if model_type == "llava_next" and not llava.language_model.tied and _text_config(config).get("tie_word_embeddings"):
        # LLaVA-NeXT follows the outer of two settings. Files of version 4 have only the inner one, and no output layer.
        with Checkpoint(folder) as checkpoint:
            tied = not any(name.endswith("lm_head.weight") for name in checkpoint.shapes)
        return replace(llava, language_model=replace(llava.language_model, tied=tied))
    return llava


def parse_llava_config(config: Mapping[str, Any], folder: Path | str) -> LlavaConfig:
    """Convert published settings to our config. Raises CourseError, naming the folder, for unsupported ones."""
    settings = read_settings(SETTINGS, config)
    vision, language = _vision_config(config, folder), llama.parse_config(_text_config(config), folder)
    layers = settings["feature_layers"]
    layers = layers if isinstance(layers, tuple) else (layers,)
    if not all(-vision.depth - 1 <= layer <= vision.depth for layer in layers):
        raise CourseError(
            f"vision_feature_layer is {list(layers)} in {folder}; the vision encoder has the hidden states 0 to "
            f"{vision.depth}, or {-vision.depth - 1} to -1 from the end"
        )
    keep_class_token = STRATEGIES[settings["strategy"]]
    if config["model_type"] == "llava_next":
        if keep_class_token:
            raise CourseError(
                f"vision_feature_select_strategy is 'full' in {folder}; LLaVA-NeXT's tiles are grids of patches, "
                "without the class token ('default')"
            )
        tied = settings["tied"]
    else:
        tied = settings["tied"] or language.tied  # two settings, and either is enough
    choices = {
        "image_token_id": settings["image_token_id"],
        "feature_layers": layers,
        "keep_class_token": keep_class_token,
    }
    return LlavaConfig(vision, replace(language, tied=tied), settings["projector_bias"], choices)


def _vision_config(config: Mapping[str, Any], folder: Path | str) -> VisionTransformerConfig:
    vision = read_part(config, "vision_config")
    vision = {"model_type": "clip_vision_model"} | (LARGE if vision is None else vision)
    require_model_type(vision, f"the vision_config of {folder}", "clip_vision_model")
    return parse_clip_vision(vision)


def _text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"model_type": "llama"} | (read_part(config, "text_config") or {})


def read_pinpoints(folder: Path | str, side: int) -> tuple[Size, ...]:
    """Read the sizes that a published LLaVA-NeXT resizes images to, in tiles of `side` pixels.

    Raises CourseError when they do not divide into tiles.
    """
    pinpoints = read_settings(PINPOINT_SETTINGS, pretrained.read_config(folder))["pinpoints"]
    if any(height % side or width % side for height, width in pinpoints):
        raise CourseError(
            f"image_grid_pinpoints is {pinpoints} in {folder}; expected multiples of the vision encoder's image_size, "
            f"{side} pixels"
        )
    return pinpoints


def write_llava_config(model_type: str, config: LlavaConfig) -> dict[str, Any]:
    """Return the contents of a published config.json. Raises CourseError for a model that could not be read again."""
    layers, keep_class_token = config.choices["feature_layers"], config.choices["keep_class_token"]
    settings = {
        "image_token_id": config.choices["image_token_id"],
        "projector_bias": config.projector_bias,
        "feature_layers": layers[0] if len(layers) == 1 else list(layers),
        "strategy": next(name for name, keeps in STRATEGIES.items() if keeps == keep_class_token),
        "tied": config.language_model.tied,
    }
    vision = write_vision_config(config.vision_encoder)
    vision.pop("architectures")
    written = {
        "model_type": model_type,
        "architectures": [ARCHITECTURES[model_type]],
        "vision_config": vision,
        "text_config": llama.write_config(config.language_model),
        "image_seq_length": config.vision_encoder.grid[0] * config.vision_encoder.grid[1] + int(keep_class_token),
        **write_settings(SETTINGS, settings),
    }
    read = parse_llava_config(written, "the written folder")
    require_same(replace(config, language_model=read.language_model), read)
    return written


def require_clip_vision(vision_encoder: nn.Module) -> VisionTransformerConfig:
    """Return the config of a CLIP vision encoder. Raises CourseError for any other encoder."""
    if (
        isinstance(vision_encoder, VisionTransformer)
        and published_vision_class(vision_encoder.config) == "CLIPVisionModel"
    ):
        return vision_encoder.config
    raise CourseError(
        "a published LLaVA has CLIP's vision encoder; "
        f"this model has {getattr(vision_encoder, 'config', type(vision_encoder).__name__)}"
    )


def require_published_projector(projector: nn.Module) -> Projector:
    """Return the projector if it has the published layout. Raises CourseError otherwise."""
    if type(projector) is Projector:
        return projector
    raise CourseError(
        "a published LLaVA has a two-layer MLP with GELU as its projector; "
        f"this model's projector is a {type(projector).__name__}"
    )


# ── Weight names ──────────────────────────────────────────────────────────────────────────────────────────────────────

PROJECTOR: list[Rule] = [
    Rename("multi_modal_projector.linear_1.{leaf}", "projector.first.{leaf}"),
    Rename("multi_modal_projector.linear_2.{leaf}", "projector.second.{leaf}"),
    Rename("image_newline", "newline"),
]


def weight_names(vision_config: VisionTransformerConfig, language_config: DecoderConfig) -> WeightNames:
    """Return the published name of each weight of a LLaVA."""
    vision, language = vision_weight_names(vision_config), language_weight_names(language_config)
    return vision_language_weight_names(vision, PROJECTOR, language)


def vision_language_weight_names(vision: WeightNames, projector: Sequence[Rule], language: WeightNames) -> WeightNames:
    """Return the published names of a model with a vision encoder, a projector and a language model.

    vision, language  names of the parts, which are `vision_encoder` and `language_model` in the model

    Three generations of published files differ. The first has `vision_tower.vision_model`, `language_model.model` and
    `multi_modal_projector`. The second puts `model.` before all of them and the output layer beside it. The third drops
    `vision_model`. The first is written, all are read.
    """
    renamings: tuple[Callable[[str], str], ...] = (lambda name: f"language_model.{name}", _later_name)
    rules = [
        *with_prefix("vision_tower.", "vision_encoder.", vision.rules),
        *projector,
        *with_prefix("language_model.", "language_model.", language.rules),
    ]
    also_read = [
        *with_prefix("vision_tower.", "vision_encoder.", vision.also_read),
        *with_prefix("model.vision_tower.", "vision_encoder.", [*vision.rules, *vision.also_read]),
        *with_prefix("model.", "", projector),
        *(
            replace(rule, published=_later_name(rule.published), model=f"language_model.{rule.model}")
            for rule in language.rules
            if isinstance(rule, Rename)
        ),
    ]
    return WeightNames(
        rules,
        also_read=also_read,
        ties=[Tie(rename(tie.published), rename(tie.to)) for tie in language.ties for rename in renamings],
        ignore=[
            *(f"{prefix}vision_tower.{name}" for prefix in ("", "model.") for name in vision.ignore),
            *(rename(name) for name in language.ignore for rename in renamings),
        ],
    )


def _later_name(name: str) -> str:
    """Return the later name of a language model's weight: `lm_head`, or a name under `model.language_model`."""
    return f"model.language_model.{name.removeprefix('model.')}" if name.startswith("model.") else name
