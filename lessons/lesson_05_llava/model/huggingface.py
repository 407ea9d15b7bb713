"""Published LLaVA checkpoints, settings and names, in both directions.

Read and written: `LlavaForConditionalGeneration` and `LlavaNextForConditionalGeneration` with `CLIPVisionModel` for an eye, and
`LlamaForCausalLM` or `Qwen2ForCausalLM` to speak through.
"""

from collections.abc import Mapping
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

SETTINGS = [
    Setting("image_token_index", "image_token", 32_000, also=("image_token_id",)),
    Setting("multimodal_projector_bias", "projector_bias", True),
    Setting("vision_feature_layer", "layers", -2),
    Setting("vision_feature_select_strategy", "strategy", "default"),
    Fixed("projector_hidden_act", "gelu"),
]
STRATEGIES = {"default": False, "full": True}
"""Whether the class token is kept."""
# What the class assumes of its eye where a file says nothing at all: CLIP ViT-L/14 at 336 pixels.
LARGE = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336,
    "patch_size": 14,
}  # fmt: skip
ARCHITECTURES = {"llava": "LlavaForConditionalGeneration", "llava_next": "LlavaNextForConditionalGeneration"}


@dataclass(frozen=True)
class LlavaSettings:
    """The sizes of the parts, and the choices that `Llava` takes by name."""

    vision: VisionTransformerConfig
    language: DecoderConfig
    projector_bias: bool
    choices: dict[str, Any]


# ── Settings ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def read(folder: Path | str, kind: str) -> LlavaSettings:
    """Our settings of a published folder. Raises CourseError when it holds another kind of model."""
    config = pretrained.read_config(folder)
    if config.get("model_type") != kind:
        raise CourseError(f"{folder} holds a model of type {config.get('model_type')!r}; this reads {kind}")
    ours = read_settings(SETTINGS, config)
    strategy = ours["strategy"]
    if strategy not in STRATEGIES:
        raise CourseError(
            f"vision_feature_select_strategy is {strategy!r} in {folder}; supported are {', '.join(STRATEGIES)}"
        )
    layers = ours["layers"] if isinstance(ours["layers"], tuple) else (ours["layers"],)
    choices = {"image_token": ours["image_token"], "layers": layers, "class_token": STRATEGIES[strategy]}
    return LlavaSettings(_vision(config, folder), _language(config, kind, folder), ours["projector_bias"], choices)


def _vision(config: Mapping[str, Any], folder: Path | str) -> VisionTransformerConfig:
    vision = config.get("vision_config") or LARGE
    if vision.get("model_type", "clip_vision_model") != "clip_vision_model":
        raise CourseError(f"the eye in {folder} is a {vision['model_type']!r}; this reads clip_vision_model")
    return clip_vision_config(**read_settings(CLIP_VISION, vision))


def _language(config: Mapping[str, Any], kind: str, folder: Path | str) -> DecoderConfig:
    language = llama.parse_config({"model_type": "llama"} | (config.get("text_config") or {}), folder)
    # Whether the head is tied is said twice: the first class takes either for a yes, the second believes the whole's word.
    whole = config.get("tie_word_embeddings")
    tied = bool(whole) or language.tied if kind == "llava" or whole is None else whole
    return replace(language, tied=tied)


def read_pinpoints(folder: Path | str) -> tuple[Size, ...]:
    """The sizes that a published LLaVA-NeXT brings its images to."""
    pinpoints = pretrained.read_config(folder).get("image_grid_pinpoints") or PINPOINTS
    return tuple((height, width) for height, width in pinpoints)


def write(kind: str, vision: VisionTransformerConfig, model: nn.Module) -> dict[str, Any]:
    """The published settings of our model. Raises CourseError when its projector is not the published one."""
    if type(model.projector) is not Projector:
        raise CourseError(
            f"a published LLaVA has two matrices with a GELU between; this one's projector is a {type(model.projector).__name__}"
        )
    language = model.language.config
    chosen = {
        "image_token": model.image_token,
        "projector_bias": model.projector.first.bias is not None,
        "layers": model.layers[0] if len(model.layers) == 1 else list(model.layers),
        "strategy": next(name for name, keeps in STRATEGIES.items() if keeps == model.class_token),
    }
    eye, text = write_vision_config(vision), llama.write_config(language)
    eye.pop("architectures")
    return {
        "model_type": kind,
        "architectures": [ARCHITECTURES[kind]],
        "vision_config": eye,
        "text_config": text,
        "image_seq_length": vision.grid[0] * vision.grid[1] + int(model.class_token),
        "tie_word_embeddings": language.tied,
        **write_settings(SETTINGS, chosen),
    }


def clip_vision(vision: nn.Module) -> VisionTransformerConfig:
    """The config of an eye that is CLIP's own. Raises CourseError for any other, which no published class could hold."""
    if isinstance(vision, VisionTransformer) and published_vision_class(vision.config) == "CLIPVisionModel":
        return vision.config
    raise CourseError(
        f"a published LLaVA looks through CLIP's tower; this one through {getattr(vision, 'config', type(vision).__name__)}"
    )


# ── Names ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

PROJECTOR = [
    Rename("multi_modal_projector.linear_1.{leaf}", "projector.first.{leaf}"),
    Rename("multi_modal_projector.linear_2.{leaf}", "projector.second.{leaf}"),
    Rename("image_newline", "newline"),
]


def table(vision: VisionTransformerConfig, language: DecoderConfig) -> WeightNames:
    """What published files call each weight.

    They were written by three generations of one library: the first files, which people have, put everything into
    `vision_tower.vision_model`, `language_model.model` and `multi_modal_projector`; later ones put a `model` before all and
    the head beside it; and the latest leave `vision_model` out again. The first is written, all are read.
    """
    eye, speaks = vision_weight_names(vision), llama.weight_names(language)
    rules = [
        *with_prefix("vision_tower.", "vision.", eye.rules),
        *PROJECTOR,
        *with_prefix("language_model.", "language.", speaks.rules),
    ]
    also_read = [
        *with_prefix("vision_tower.", "vision.", eye.also_read),
        *with_prefix("model.vision_tower.", "vision.", [*eye.rules, *eye.also_read]),
        *with_prefix("model.", "", PROJECTOR),
        *(replace(rule, published=_later(rule.published), model=f"language.{rule.model}") for rule in speaks.rules),
    ]
    return WeightNames(
        rules,
        also_read=also_read,
        ties=[
            Tie(spelled(tie.published), spelled(tie.to))
            for tie in speaks.ties
            for spelled in (lambda name: f"language_model.{name}", _later)
        ],
        ignore=[
            *(f"{prefix}vision_tower.{name}" for prefix in ("", "model.") for name in eye.ignore),
            *(spelled(name) for name in speaks.ignore for spelled in (lambda name: f"language_model.{name}", _later)),
        ],
    )


def _later(name: str) -> str:
    """The later spelling of a language model's own name: the head stands by itself, all else under `model.language_model`."""
    return f"model.language_model.{name.removeprefix('model.')}" if name.startswith("model.") else name
