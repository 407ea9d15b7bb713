"""Map the `config.json` of published Qwen-VL models to our config, and back; weight_names.py maps the weights.

Qwen2-VL and Qwen2.5-VL are published with the language model's settings beside the others; version 5 of transformers
writes them into `text_config`, as Qwen3-VL has them. Both forms are read, and the public one is written.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from math import isqrt
from pathlib import Path
from typing import Any

from lessons.lesson_09_qwen_vl.model.config import VISION_ACTIVATIONS, Generation, QwenVLConfig, VisionConfig
from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import (
    Derived,
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
from shared.pretrained.rotary_settings import read_rotary, write_rotary
from shared.pretrained.setting_values import integer, number, one_of, optional
from shared.transformer import DecoderConfig

GENERATION_OF: dict[str, Generation] = {"qwen2_vl": "2", "qwen2_5_vl": "2.5", "qwen3_vl": "3"}
MODEL_TYPES = {generation: name for name, generation in GENERATION_OF.items()}
ARCHITECTURES = {
    "2": "Qwen2VLForConditionalGeneration",
    "2.5": "Qwen2_5_VLForConditionalGeneration",
    "3": "Qwen3VLForConditionalGeneration",
}
ROTARY_BASES = {"2": 1_000_000.0, "2.5": 1_000_000.0, "3": 500_000.0}
SECTIONS = {"2": [16, 24, 24], "2.5": [16, 24, 24], "3": [24, 20, 20]}


def _layers(value: Any) -> tuple[int, ...]:
    """Accept a list of layers, counted from 0."""
    if not isinstance(value, list | tuple):
        raise ValueError("a list of layers")
    return tuple(map(integer(0), value))


def _square(value: Any) -> int:
    """Accept the number of positions of a square grid; the published class ignores positions beyond a square."""
    count = integer()(value)
    if isqrt(count) ** 2 != count:
        raise ValueError("the square of a whole number: the learned positions form a square")
    return count


def _sections(value: Any) -> tuple[int, ...]:
    """Accept the numbers of rotary pairs of time, row and column."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError("three whole numbers")
    return tuple(map(integer(0), value))


# ── Tables ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _vision_settings(depth: int, width: tuple[str, int], patch_size: int, activation: str) -> list[Row]:
    return [
        Setting("depth", "depth", depth, also=("num_hidden_layers",)),
        Setting(width[0], "width", width[1]),
        Setting("num_heads", "heads", 16, also=("num_attention_heads",)),
        Setting("in_channels", "channels", 3),
        Setting("patch_size", "patch_size", patch_size),
        Setting("spatial_merge_size", "merge_size", 2),
        Setting("temporal_patch_size", "frames_per_patch", 2),
        Setting("hidden_act", "activation", activation, accept=one_of(VISION_ACTIVATIONS)),
        Derived("head_dim", lambda fields: fields["width"] // fields["heads"]),
        Unused("rope_parameters"),  # read by `_vision_rotary_base`
    ]


VISION: dict[str, list[Row]] = {
    "2": [
        *_vision_settings(32, ("embed_dim", 1280), 14, "quick_gelu"),
        Setting("hidden_size", "output_width", 3584),
        Setting("mlp_ratio", "mlp_ratio", 4, accept=number(above=True)),
    ],
    "2.5": [
        *_vision_settings(32, ("hidden_size", 3584), 14, "silu"),
        Setting("intermediate_size", "mlp_dim", 3420),
        Setting("out_hidden_size", "output_width", 3584),
        Setting("tokens_per_second", "tokens_per_second", 4, accept=number()),
        Setting("window_size", "window_size", 112),
        Setting("fullatt_block_indexes", "full_attention_layers", (7, 15, 23, 31), accept=_layers),
    ],
    "3": [
        *_vision_settings(27, ("hidden_size", 1152), 16, "gelu_pytorch_tanh"),
        Setting("intermediate_size", "mlp_dim", 4304),
        Setting("out_hidden_size", "output_width", 3584),
        Setting("num_position_embeddings", "grid_positions", 2304, accept=_square),
        Setting("deepstack_visual_indexes", "deepstack_layers", (8, 16, 24), accept=_layers),
    ],
}
QWEN2: list[Row] = [
    Setting("vocab_size", "vocab_size", 152_064),
    Setting("hidden_size", "width", 8192),
    Setting("intermediate_size", "mlp_dim", 29_568),
    Setting("num_hidden_layers", "depth", 80),
    Setting("num_attention_heads", "heads", 64),
    Setting("num_key_value_heads", "kv_heads", 8, accept=optional(integer())),
    Setting("max_position_embeddings", "max_positions", 32_768),
    Setting("rms_norm_eps", "norm_eps", 1e-5),
    Derived("head_dim", lambda fields: fields["width"] // fields["heads"]),
    Fixed("hidden_act", "silu"),
    Derived("use_sliding_window", lambda _: False),
    # Without use_sliding_window, these two have no effect, and no layer may be named a sliding one.
    Unused("sliding_window"),
    Unused("max_window_layers"),
    Derived("layer_types", lambda fields: ("full_attention",) * fields["depth"]),
    Unused("rope_parameters"),  # read by `_rotary`
]
LANGUAGE: dict[str, list[Row]] = {
    "2": QWEN2,
    "2.5": QWEN2,
    "3": [
        Setting("vocab_size", "vocab_size", 151_936),
        Setting("hidden_size", "width", 4096),
        Setting("intermediate_size", "mlp_dim", 22_016),
        Setting("num_hidden_layers", "depth", 32),
        Setting("num_attention_heads", "heads", 32),
        Setting("num_key_value_heads", "kv_heads", 32, accept=optional(integer())),
        Setting("head_dim", "head_dim", 128),
        Setting("max_position_embeddings", "max_positions", 128_000),
        Setting("rms_norm_eps", "norm_eps", 1e-6),
        Fixed("hidden_act", "silu"),
        Fixed("attention_bias", False),
        Unused("rope_parameters"),
    ],
}
OUTER: list[Row] = [
    *(
        Setting(name, name, default, accept=integer(0))
        for name, default in (("image_token_id", 151_655), ("video_token_id", 151_656))
    ),
    *(
        Setting(name, name, default, accept=integer(0))
        for name, default in (("vision_start_token_id", 151_652), ("vision_end_token_id", 151_653))
    ),
    Setting("tie_word_embeddings", "tied", False),
]
PARTS = ("vision_config", "text_config")

# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_qwen_vl_config(folder: Path | str) -> QwenVLConfig:
    """Return our config of a published model. Raises CourseError when the folder holds another one."""
    return parse_config(pretrained.read_config(folder, *GENERATION_OF))


def parse_config(config: Mapping[str, Any]) -> QwenVLConfig:
    """Return our config of published settings. Raises CourseError for settings that are not supported."""
    generation = GENERATION_OF[config["model_type"]]
    outer = read_settings(OUTER, config)
    text = read_part(config, "text_config")
    if text is None:
        # Without a part, Qwen3-VL's class assumes its defaults and ignores settings beside it.
        text = {} if generation == "3" else dict(config)
    # An inner setting of version 4 counts where the outer one has its default.
    tied = outer.pop("tied") or (generation != "3" and bool(text.get("tie_word_embeddings")))
    vision, tokens_per_second = _read_vision(generation, read_part(config, "vision_config") or {})
    language, sections = _read_language(generation, text)
    return build_config(
        QwenVLConfig,
        generation=generation,
        vision=vision,
        language=replace(language, tied=tied),
        sections=sections,
        tokens_per_second=tokens_per_second,
        **outer,
    )


def _read_vision(generation: Generation, config: Mapping[str, Any]) -> tuple[VisionConfig, float]:
    fields = read_settings(VISION[generation], config, "vision_config")
    tokens_per_second = fields.pop("tokens_per_second", 4.0)
    if generation == "2":
        fields["mlp_dim"] = int(fields["width"] * fields.pop("mlp_ratio"))
    elif generation == "2.5":
        fields |= {"norm": "rms", "gated_mlp": True}
    else:
        fields |= {"patch_bias": True, "grid_size": isqrt(fields.pop("grid_positions"))}
    rotary_base = _vision_rotary_base(config)
    return build_config(VisionConfig, **fields, rotary_base=rotary_base), tokens_per_second


def _vision_rotary_base(config: Mapping[str, Any]) -> float:
    """Return the base of the vision encoder's rotary angles. Raises CourseError for angles that are not axial."""
    beside = {name: config[name] for name in ("rope_theta", "partial_rotary_factor") if name in config}
    rotary = beside | (read_part(config, "rope_scaling") or read_part(config, "rope_parameters") or {})
    kind = rotary.get("rope_type", rotary.get("type", "axial"))
    if kind not in ("axial", "default"):
        raise CourseError(f"the rotary type of vision_config is {kind!r}; supported is only 'axial'")
    rows: list[Row] = [
        Setting("rope_theta", "base", 10_000.0, accept=number(above=True)),
        Derived("partial_rotary_factor", lambda _: 1.0),
    ]
    return read_settings(rows, rotary, "the rotary position of vision_config")["base"]


def _read_language(generation: Generation, text: Mapping[str, Any]) -> tuple[DecoderConfig, tuple[int, ...]]:
    fields = read_settings(LANGUAGE[generation], text, "text_config")
    width, heads = fields["width"], fields["heads"]
    if generation != "3":
        if width % heads:
            raise CourseError(f"hidden_size {width} does not divide into {heads} heads (num_attention_heads)")
        fields |= {"qkv_bias": True, "head_dim": width // heads}
    fields["kv_heads"] = fields["kv_heads"] or heads
    if heads % fields["kv_heads"] or fields["head_dim"] % 2:
        raise CourseError(
            f"{heads} query heads share {fields['kv_heads']} key heads of dimension {fields['head_dim']}; expected a "
            "divisor and an even dimension (num_key_value_heads, head_dim)"
        )
    part = next((name for name in ("rope_scaling", "rope_parameters") if text.get(name)), None)
    rotary = dict(read_part(text, part) or {}) if part else {}
    values = read_settings(
        [Setting("mrope_section", "sections", SECTIONS[generation], accept=_sections)], rotary, "the rotary position"
    )
    if rotary.get("rope_type", rotary.get("type")) == "mrope" and generation != "3":
        rotary["rope_type"] = "default"
    plain = {name: value for name, value in text.items() if name not in ("rope_scaling", "rope_parameters")}
    scaling = read_rotary(plain | {"rope_parameters": rotary}, fields["max_positions"], ROTARY_BASES[generation])
    return build_config(DecoderConfig, **fields, **scaling), tuple(values["sections"])


# ── Writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_qwen_vl_config(config: QwenVLConfig) -> dict[str, Any]:
    """Return the contents of a published config.json. Raises CourseError for a model that could not be read again."""
    generation, vision, language = config.generation, asdict(config.vision), config.language
    vision |= {
        "mlp_ratio": config.vision.mlp_dim / config.vision.width,
        "tokens_per_second": config.tokens_per_second,
        "grid_positions": config.vision.grid_size**2,
    }
    for name in ("mlp_ratio", "tokens_per_second"):  # the published classes take whole numbers only
        if vision[name] == int(vision[name]):
            vision[name] = int(vision[name])
    if generation == "2.5" and config.vision.window_size is None:
        raise CourseError("Qwen2.5-VL has window attention; this model has none (window_size None)")
    published_vision = write_settings(VISION[generation], vision) | {"model_type": MODEL_TYPES[generation]}
    if config.vision.rotary_base != 10_000.0:
        published_vision["rope_parameters"] = {"rope_type": "axial", "rope_theta": config.vision.rotary_base}
    rotary = write_rotary(language)
    base = rotary.pop("rope_theta")
    # The older spelling of unscaled M-RoPE in the public files of the first two generations.
    kind = {"type": "mrope"} if language.rotary_scaling is None and generation != "3" else {}
    rotary |= {"mrope_section": list(config.sections), **kind}
    if generation == "3":
        rotary["mrope_interleaved"] = True
    if kind:
        rotary.pop("rope_type")
    text = write_settings(LANGUAGE[generation], asdict(language))
    text |= {"rope_theta": base, "rope_scaling": rotary}
    text = {"text_config": text | {"model_type": "qwen3_vl_text"}} if generation == "3" else text
    settings = {
        "model_type": MODEL_TYPES[generation],
        "architectures": [ARCHITECTURES[generation]],
        "vision_config": published_vision,
        **write_settings(OUTER, asdict(config) | {"tied": language.tied}),
        **text,
    }
    read = parse_config(settings)
    require_same(config.vision, read.vision)
    head_dim = language.width_per_head
    require_same(replace(language, head_dim=head_dim), read.language)
    require_same(replace(config, language=replace(language, head_dim=head_dim)), read)
    return settings
