"""The names and settings of published checkpoints: `ViTModel`, `ViTForImageClassification`, `Dinov2Model` and
`Dinov2WithRegistersModel`, as they lie in the folders that people download."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lessons.lesson_01_vit.model.config import VisionTransformerConfig
from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import (
    Checkpoint,
    Fixed,
    Rearrange,
    Rename,
    Setting,
    Split,
    Table,
    load_weights,
    read_settings,
    save_pretrained,
    under,
    write_settings,
)

__all__ = ["load_weights", "read_config", "save_pretrained", "table", "write_config"]

SETTINGS = [
    Setting("image_size", "image_size", 224),
    Setting("num_channels", "channels", 3),
    Setting("hidden_size", "width", 768),
    Setting("num_hidden_layers", "depth", 12),
    Setting("num_attention_heads", "heads", 12),
    Setting("qkv_bias", "qkv_bias", True),
    Fixed("hidden_act", "gelu"),
]
VIT_SETTINGS = [
    *SETTINGS,
    Setting("patch_size", "patch_size", 16),
    Setting("intermediate_size", "hidden", 3072),
    Setting("layer_norm_eps", "norm_eps", 1e-12),
    Fixed("pooler_act", "tanh"),
]
DINOV2_SETTINGS = [
    *SETTINGS,
    Setting("mlp_ratio", "mlp_ratio", 4),
    Setting("layer_norm_eps", "norm_eps", 1e-6),
    Setting("layerscale_value", "layer_scale", 1.0),
    Setting("drop_path_rate", "drop_path", 0.0),
    Setting("use_swiglu_ffn", "swiglu", False),
]
PLAIN_DINOV2_SETTINGS = [
    *DINOV2_SETTINGS,
    Setting("patch_size", "patch_size", 14),
    Setting("use_mask_token", "mask_token", True),
]
REGISTERS_SETTINGS = [
    *DINOV2_SETTINGS,
    Setting("patch_size", "patch_size", 16),
    Setting("num_register_tokens", "registers", 4),
    # Published files say so, and the class does nothing else.
    Fixed("interpolate_antialias", True),
    Fixed("interpolate_offset", 0.0),
]


# ── Settings ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_config(folder: Path | str) -> VisionTransformerConfig:
    """Our config of a published folder. Raises CourseError when the folder holds another kind of model."""
    config = pretrained.read_config(folder)
    kind = config.get("model_type")
    config = {name: _one_side(value) if name == "patch_size" else value for name, value in config.items()}
    if kind == "vit":
        return _read_vit(config, folder)
    if kind not in ("dinov2", "dinov2_with_registers"):
        raise CourseError(
            f"{folder} holds a model of type {kind!r}; this lesson reads vit, dinov2, dinov2_with_registers"
        )
    if "Classification" in _architecture(config, ""):
        raise CourseError(
            f"{folder} holds {_architecture(config, '')}; of DINOv2 this lesson reads the encoder without a head"
        )
    registers = kind == "dinov2_with_registers"
    ours = read_settings(REGISTERS_SETTINGS if registers else PLAIN_DINOV2_SETTINGS, config)
    swiglu, ratio = ours.pop("swiglu"), ours.pop("mlp_ratio")
    ours |= {"antialias": True, "mask_token": True} if registers else {}
    return VisionTransformerConfig(
        **ours, hidden=_hidden(ours["width"], ratio, swiglu), feed_forward="swiglu" if swiglu else "gelu"
    )


def _read_vit(config: Mapping[str, Any], folder: Path | str) -> VisionTransformerConfig:
    ours = read_settings(VIT_SETTINGS, config)
    with Checkpoint(folder) as checkpoint:
        names = checkpoint.shapes
    classifies = "Classification" in _architecture(config, "Classification" if "classifier.weight" in names else "")
    if config.get("pooler_output_size", ours["width"]) not in (None, ours["width"]):
        raise CourseError(f"pooler_output_size {config['pooler_output_size']} differs from hidden_size {ours['width']}")
    # Some published ViTModel files (DINO's) have no pooler, and no setting that says so.
    pooler = not classifies and "pooler.dense.weight" in names
    return VisionTransformerConfig(**ours, classes=_classes(config) if classifies else 0, pooler=pooler)


def _architecture(config: Mapping[str, Any], default: str) -> str:
    return (config.get("architectures") or [default])[0]


def _classes(config: Mapping[str, Any]) -> int:
    """Published configs count classes by naming them; without names the class assumes two."""
    return len(config["id2label"]) if config.get("id2label") else config.get("num_labels") or 2


def _one_side(size: int | list[int]) -> int:
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise CourseError(f"patch_size is {size}; patches here are square")
    return sides.pop()


def _hidden(width: int, ratio: float, swiglu: bool) -> int:
    """DINOv2's feed-forward width: a SwiGLU has three matrices instead of two, so it takes two thirds, in eights."""
    hidden = int(width * ratio)
    return (int(hidden * 2 / 3) + 7) // 8 * 8 if swiglu else hidden


def write_config(config: VisionTransformerConfig) -> dict[str, Any]:
    """The published settings of our config. Raises CourseError when no published class is such a model."""
    kind, architecture = _published_class(config)
    ours = asdict(config)
    if kind == "vit":
        labels = {str(number): f"LABEL_{number}" for number in range(config.classes)}
        names = (
            {"id2label": labels, "label2id": {name: int(number) for number, name in labels.items()}} if labels else {}
        )
        settings, extra = VIT_SETTINGS, names
    else:
        swiglu = config.feed_forward == "swiglu"
        ours |= {"swiglu": swiglu, "mlp_ratio": _ratio(config, swiglu)}
        settings, extra = (PLAIN_DINOV2_SETTINGS if kind == "dinov2" else REGISTERS_SETTINGS), {}
    return {
        "model_type": kind,
        "architectures": [architecture],
        **write_settings(settings, ours),
        **extra,
    }


def _published_class(config: VisionTransformerConfig) -> tuple[str, str]:
    """The model type and the class of `transformers` that a config is; CourseError when it is none."""
    plain = config.positions == "learned" and config.pooling == "class" and not config.distillation_token
    if plain and config.layer_scale is None:
        simple = config.feed_forward == "gelu" and not (config.registers or config.antialias or config.mask_token)
        if simple and not config.drop_path and not (config.classes and config.pooler):
            return "vit", "ViTForImageClassification" if config.classes else "ViTModel"
    elif plain and not config.classes and not config.pooler:
        if config.registers and config.antialias and config.mask_token:
            return "dinov2_with_registers", "Dinov2WithRegistersModel"
        if not config.registers and not config.antialias:
            return "dinov2", "Dinov2Model"
    raise CourseError(
        "no published class is a model with these choices, so other programs could not read it; they are a ViT (learned "
        "positions, class token, nothing else), a DINOv2 (and layer_scale) and a DINOv2 with registers (and antialias, "
        f"mask_token), got {config}"
    )


def _ratio(config: VisionTransformerConfig, swiglu: bool) -> int:
    """The whole ratio that gives this feed-forward width; DINOv2's config knows no other."""
    for ratio in range(1, 4 * config.hidden // config.width + 2):
        if _hidden(config.width, ratio, swiglu) == config.hidden:
            return ratio
    raise CourseError(
        f"DINOv2 has no whole mlp_ratio for a feed-forward width of {config.hidden} at width {config.width}"
    )


# ── Weights ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def table(config: VisionTransformerConfig) -> Table:
    """The names of a config's weights in published files. Raises CourseError when no published class is such a model."""
    kind, architecture = _published_class(config)
    rules, also_read = [*_embeddings(config)], []
    if kind == "vit":
        rules += VIT_BLOCK
        also_read += VIT_IN_MEMORY
        if architecture == "ViTForImageClassification":
            rules, also_read = under("vit.", "", rules), under("vit.", "", also_read)
            rules.append(Rename("classifier.{leaf}", "head.{leaf}"))
    else:
        rules += [*DINOV2_BLOCK, *(SWIGLU if config.feed_forward == "swiglu" else FEED_FORWARD)]
        also_read += DINOV2_IN_MEMORY
    return Table(rules, also_read=also_read)


def _embeddings(config: VisionTransformerConfig) -> list[Rename]:
    kernel = Rearrange(
        "width channels row column -> width (row column channels)",
        channels=config.channels,
        row=config.patch_size,
        column=config.patch_size,
    )
    return [
        Rename("embeddings.patch_embeddings.projection.weight", "patch_embedding.project.weight", kernel),
        Rename("embeddings.patch_embeddings.projection.bias", "patch_embedding.project.bias"),
        Rename("embeddings.cls_token", "class_token", Rearrange("1 1 width -> width")),
        Rename("embeddings.position_embeddings", "positions", Rearrange("1 tokens width -> tokens width")),
        Rename("embeddings.register_tokens", "registers", Rearrange("1 tokens width -> tokens width")),
        Rename("embeddings.mask_token", "mask_token", Rearrange("1 width -> width")),
        Rename("layernorm.{leaf}", "norm.{leaf}"),
        Rename("pooler.dense.{leaf}", "pooler.{leaf}"),
    ]


ATTENTION = [
    Rename("encoder.layer.{n}.attention.attention.query.{leaf}", "blocks.{n}.attention.query.{leaf}"),
    Rename("encoder.layer.{n}.attention.attention.key.{leaf}", "blocks.{n}.attention.key.{leaf}"),
    Rename("encoder.layer.{n}.attention.attention.value.{leaf}", "blocks.{n}.attention.value.{leaf}"),
    Rename("encoder.layer.{n}.attention.output.dense.{leaf}", "blocks.{n}.attention.output.{leaf}"),
]
VIT_BLOCK = [
    *ATTENTION,
    Rename("encoder.layer.{n}.layernorm_before.{leaf}", "blocks.{n}.attention_norm.{leaf}"),
    Rename("encoder.layer.{n}.layernorm_after.{leaf}", "blocks.{n}.feed_forward_norm.{leaf}"),
    Rename("encoder.layer.{n}.intermediate.dense.{leaf}", "blocks.{n}.feed_forward.up.{leaf}"),
    Rename("encoder.layer.{n}.output.dense.{leaf}", "blocks.{n}.feed_forward.down.{leaf}"),
]
DINOV2_BLOCK = [
    *ATTENTION,
    Rename("encoder.layer.{n}.norm1.{leaf}", "blocks.{n}.attention_norm.{leaf}"),
    Rename("encoder.layer.{n}.norm2.{leaf}", "blocks.{n}.feed_forward_norm.{leaf}"),
    Rename("encoder.layer.{n}.layer_scale1.lambda1", "blocks.{n}.attention_scale"),
    Rename("encoder.layer.{n}.layer_scale2.lambda1", "blocks.{n}.feed_forward_scale"),
]
FEED_FORWARD = [
    Rename("encoder.layer.{n}.mlp.fc1.{leaf}", "blocks.{n}.feed_forward.up.{leaf}"),
    Rename("encoder.layer.{n}.mlp.fc2.{leaf}", "blocks.{n}.feed_forward.down.{leaf}"),
]
# On disk a SwiGLU's two matrices on the way in are one.
SWIGLU = [
    Split(
        "encoder.layer.{n}.mlp.weights_in.{leaf}",
        ["blocks.{n}.feed_forward.gate.{leaf}", "blocks.{n}.feed_forward.up.{leaf}"],
    ),
    Rename("encoder.layer.{n}.mlp.weights_out.{leaf}", "blocks.{n}.feed_forward.down.{leaf}"),
]
# Files written from a model's state in memory since version 5 of transformers carry its new modules' names.
ATTENTION_IN_MEMORY = [
    Rename("attention.q_proj.{leaf}", "attention.query.{leaf}"),
    Rename("attention.k_proj.{leaf}", "attention.key.{leaf}"),
    Rename("attention.v_proj.{leaf}", "attention.value.{leaf}"),
    Rename("attention.o_proj.{leaf}", "attention.output.{leaf}"),
]
FEED_FORWARD_IN_MEMORY = [
    Rename("mlp.fc1.{leaf}", "feed_forward.up.{leaf}"),
    Rename("mlp.fc2.{leaf}", "feed_forward.down.{leaf}"),
]
NORMS_IN_MEMORY = [
    Rename("layernorm_before.{leaf}", "attention_norm.{leaf}"),
    Rename("layernorm_after.{leaf}", "feed_forward_norm.{leaf}"),
]
SWIGLU_IN_MEMORY = [
    Rename("mlp.gate_proj.{leaf}", "feed_forward.gate.{leaf}"),
    Rename("mlp.up_proj.{leaf}", "feed_forward.up.{leaf}"),
    Rename("mlp.down_proj.{leaf}", "feed_forward.down.{leaf}"),
]
VIT_IN_MEMORY = under("layers.{n}.", "blocks.{n}.", [*ATTENTION_IN_MEMORY, *NORMS_IN_MEMORY, *FEED_FORWARD_IN_MEMORY])
DINOV2_IN_MEMORY = under("encoder.layer.{n}.", "blocks.{n}.", [*ATTENTION_IN_MEMORY, *SWIGLU_IN_MEMORY])
