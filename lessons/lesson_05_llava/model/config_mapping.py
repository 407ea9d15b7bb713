"""Published LLaVA checkpoints: configs and weight names in both directions.

Read and written: `LlavaForConditionalGeneration` and `LlavaNextForConditionalGeneration` with `CLIPVisionModel` as the
vision encoder and `LlamaForCausalLM` or `Qwen2ForCausalLM` as the language model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from lessons.lesson_00_foundations.decoder.model import language_model as llama
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from lessons.lesson_02_clip.model import clip_vision_config
from lessons.lesson_02_clip.model.config_mapping import CLIP_VISION, published_vision_class, write_vision_config
from lessons.lesson_02_clip.model.weight_names import vision_weight_names
from lessons.lesson_05_llava.model.anyres import PINPOINTS, Size
from lessons.lesson_05_llava.model.projector import Projector
from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import Fixed, Rename, Setting, Tie, WeightNames, read_settings, with_prefix, write_settings
from shared.transformer import DecoderConfig

SETTINGS: list[Setting | Fixed] = [
    Setting("image_token_index", "image_token_id", 32_000, also=("image_token_id",)),
    Setting("multimodal_projector_bias", "projector_bias", True),
    Setting("vision_feature_layer", "feature_layers", -2),
    Setting("vision_feature_select_strategy", "strategy", "default"),
    Fixed("projector_hidden_act", "gelu"),
]
STRATEGIES = {"default": False, "full": True}
"""Published strategy → whether the class token is kept."""
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
    config = pretrained.read_config(folder)
    if config.get("model_type") != model_type:
        raise CourseError(
            f"{folder} holds a model of type {config.get('model_type')!r}; this loader reads {model_type!r}"
        )
    settings = read_settings(SETTINGS, config)
    strategy = settings["strategy"]
    if strategy not in STRATEGIES:
        raise CourseError(
            f"vision_feature_select_strategy is {strategy!r} in {folder}; supported are {', '.join(STRATEGIES)}"
        )
    layers = settings["feature_layers"]
    choices = {
        "image_token_id": settings["image_token_id"],
        "feature_layers": layers if isinstance(layers, tuple) else (layers,),
        "keep_class_token": STRATEGIES[strategy],
    }
    return LlavaConfig(
        _vision_config(config, folder),
        _language_config(config, model_type, folder),
        settings["projector_bias"],
        choices,
    )


def _vision_config(config: Mapping[str, Any], folder: Path | str) -> VisionTransformerConfig:
    vision = config.get("vision_config") or LARGE
    if vision.get("model_type", "clip_vision_model") != "clip_vision_model":
        raise CourseError(
            f"the vision encoder in {folder} is a {vision['model_type']!r}; this loader reads clip_vision_model"
        )
    return clip_vision_config(**read_settings(CLIP_VISION, vision))


def _language_config(config: Mapping[str, Any], model_type: str, folder: Path | str) -> DecoderConfig:
    language = llama.parse_config({"model_type": "llama"} | (config.get("text_config") or {}), folder)
    # Two keys state whether the output layer is tied: LLaVA ties it if either is true, LLaVA-NeXT follows the outer.
    outer = config.get("tie_word_embeddings")
    tied = bool(outer) or language.tied if model_type == "llava" or outer is None else outer
    return replace(language, tied=tied)


def read_pinpoints(folder: Path | str) -> tuple[Size, ...]:
    """Read the sizes that a published LLaVA-NeXT resizes images to."""
    pinpoints = pretrained.read_config(folder).get("image_grid_pinpoints") or PINPOINTS
    return tuple((height, width) for height, width in pinpoints)


def write_llava_config(model_type: str, config: LlavaConfig) -> dict[str, Any]:
    """Return the contents of a published config.json."""
    layers, keep_class_token = config.choices["feature_layers"], config.choices["keep_class_token"]
    settings = {
        "image_token_id": config.choices["image_token_id"],
        "projector_bias": config.projector_bias,
        "feature_layers": layers[0] if len(layers) == 1 else list(layers),
        "strategy": next(name for name, keeps in STRATEGIES.items() if keeps == keep_class_token),
    }
    vision = write_vision_config(config.vision_encoder)
    vision.pop("architectures")
    return {
        "model_type": model_type,
        "architectures": [ARCHITECTURES[model_type]],
        "vision_config": vision,
        "text_config": llama.write_config(config.language_model),
        "image_seq_length": config.vision_encoder.grid[0] * config.vision_encoder.grid[1] + int(keep_class_token),
        "tie_word_embeddings": config.language_model.tied,
        **write_settings(SETTINGS, settings),
    }


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

PROJECTOR = [
    Rename("multi_modal_projector.linear_1.{leaf}", "projector.first.{leaf}"),
    Rename("multi_modal_projector.linear_2.{leaf}", "projector.second.{leaf}"),
    Rename("image_newline", "newline"),
]


def weight_names(vision_config: VisionTransformerConfig, language_config: DecoderConfig) -> WeightNames:
    """Return the published name of each weight.

    Three generations of published files differ. The first has `vision_tower.vision_model`, `language_model.model` and
    `multi_modal_projector`. The second puts `model.` before all of them and the output layer beside it. The third drops
    `vision_model`. The first is written, all are read.
    """
    vision, language = vision_weight_names(vision_config), llama.weight_names(language_config)
    renamings: tuple[Callable[[str], str], ...] = (lambda name: f"language_model.{name}", _later_name)
    rules = [
        *with_prefix("vision_tower.", "vision_encoder.", vision.rules),
        *PROJECTOR,
        *with_prefix("language_model.", "language_model.", language.rules),
    ]
    also_read = [
        *with_prefix("vision_tower.", "vision_encoder.", vision.also_read),
        *with_prefix("model.vision_tower.", "vision_encoder.", [*vision.rules, *vision.also_read]),
        *with_prefix("model.", "", PROJECTOR),
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
