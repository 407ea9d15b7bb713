"""Map the `config.json` and the weight names of published PaliGemmas and PaliGemma 2s to ours, and back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lessons.lesson_01_vit.model import VisionTransformerConfig
from lessons.lesson_02_clip.model import siglip_vision_config
from lessons.lesson_02_clip.model.config_mapping import SIGLIP_VISION
from lessons.lesson_02_clip.model.weight_names import ATTENTION_POOLING, vision_weight_names
from lessons.lesson_05_llava.model.config_mapping import vision_language_weight_names
from lessons.lesson_07_recipes.model.gemma_config_mapping import (
    gemma_weight_names,
    parse_gemma_config,
    write_gemma_config,
)
from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import (
    Rename,
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

MODEL_TYPE = "paligemma"
SETTINGS: list[Row] = [
    Setting("image_token_index", "image_token_id", 256_000, also=("image_token_id",), accept=integer(0)),
    Setting("projection_dim", "projection_dim", 2048),
    Setting("tie_word_embeddings", "tied", True),
    # Only those of the language model have an effect.
    Setting("vocab_size", "outer_vocab_size", 257_152),
    Setting("hidden_size", "outer_width", 2048),
]
VISION_SETTINGS: list[Row] = [
    *(row for row in SIGLIP_VISION if row.published != "vision_use_head"),
    # The features are the patches, so that the pooling head of a SigLIP has no effect.
    Unused("vision_use_head"),
    # The whole model's `projection_dim` counts.
    Unused("projection_dim"),
]
# The class's parts when a file has no vision_config or no text_config: SigLIP so400m/14 at 224 pixels, and Gemma 2B.
VISION_DEFAULTS = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4096,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
}
TEXT_DEFAULTS = {
    "model_type": "gemma",
    "hidden_size": 2048,
    "intermediate_size": 16_384,
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "vocab_size": 257_152,
}


@dataclass(frozen=True)
class PaliGemmaConfig:
    """The configs of the parts, and the token id of the image positions."""

    vision_encoder: VisionTransformerConfig
    language_model: DecoderConfig
    image_token_id: int


def read_paligemma_config(folder: Path | str) -> PaliGemmaConfig:
    """Read the config of a published folder. Raises CourseError when it holds another type of model."""
    return parse_paligemma_config(pretrained.read_config(folder, MODEL_TYPE), folder)


def parse_paligemma_config(config: Mapping[str, Any], folder: Path | str) -> PaliGemmaConfig:
    """Convert published settings to our config. Raises CourseError, naming the folder, for unsupported ones."""
    settings = read_settings(SETTINGS, config)
    vision = read_part(config, "vision_config")
    vision = VISION_DEFAULTS if vision is None else {"model_type": "siglip_vision_model"} | vision
    require_model_type(vision, f"the vision_config of {folder}", "siglip_vision_model")
    fields = read_settings(VISION_SETTINGS, vision, "vision_config")
    text = read_part(config, "text_config")
    text = TEXT_DEFAULTS if text is None else {"model_type": "gemma"} | text
    language = parse_gemma_config(text, f"the text_config of {folder}", prefix_lm=True)
    if settings["projection_dim"] != language.width:
        raise CourseError(
            f"projection_dim is {settings['projection_dim']} in {folder}; image embeddings must have the width of the "
            f"language model, hidden_size {language.width} of text_config"
        )
    return PaliGemmaConfig(
        build_config(siglip_vision_config, **fields, pooling="mean"),
        replace(language, tied=settings["tied"], position_offset=1),
        settings["image_token_id"],
    )


def write_paligemma_config(config: PaliGemmaConfig) -> dict[str, Any]:
    """Return the contents of a published config.json. Raises CourseError for a model that could not be read again."""
    vision, language = config.vision_encoder, config.language_model
    image_tokens = vision.grid[0] * vision.grid[1]
    text = write_gemma_config(replace(language, position_offset=0), prefix_lm=True)
    text.pop("architectures")
    values = {"image_token_id": config.image_token_id, "projection_dim": language.width, "tied": language.tied}
    values |= {"outer_vocab_size": language.vocab_size, "outer_width": language.width}
    written = {
        "model_type": MODEL_TYPE,
        "architectures": ["PaliGemmaForConditionalGeneration"],
        **write_settings(SETTINGS, values),
        "vision_config": {
            "model_type": "siglip_vision_model",
            **write_settings(VISION_SETTINGS, asdict(vision)),
            "vision_use_head": False,
            "projection_dim": language.width,
            "num_image_tokens": image_tokens,
        },
        "text_config": text | {"num_image_tokens": image_tokens},
    }
    read = parse_paligemma_config(written, "the written folder")
    require_same(vision, read.vision_encoder)
    # `write_gemma_config` has compared all other fields.
    expected = replace(read.language_model, tied=language.tied, position_offset=language.position_offset)
    require_same(expected, read.language_model)
    return written


def paligemma_weight_names(config: PaliGemmaConfig) -> WeightNames:
    """Return the published name of each weight, in the three generations of files that LLaVA has too."""
    vision, language = vision_weight_names(config.vision_encoder), gemma_weight_names(config.language_model)
    # The model has no pooling head, but a file may contain one.
    head = [name for rule in ATTENTION_POOLING for name in rule.patterns[0]]
    vision = WeightNames(
        vision.rules,
        also_read=vision.also_read,
        ignore=[*vision.ignore, *(prefix + name for name in head for prefix in ("", "vision_model."))],
    )
    return vision_language_weight_names(
        vision, [Rename("multi_modal_projector.linear.{leaf}", "projector.{leaf}")], language
    )
