"""The settings of published checkpoints, `config.json`, in both directions; the weights' names are in huggingface_names.py.

Read and written: `ViTModel`, `ViTForImageClassification`, `DeiTForImageClassificationWithTeacher`, `ViTMAEForPreTraining`,
`Dinov2Model` and `Dinov2WithRegistersModel`, as they lie in the folders that people download.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lessons.lesson_01_vit.model.config import MaskedAutoencoderConfig, VisionTransformerConfig
from lessons.lesson_01_vit.model.huggingface_names import dinov2_table, vit_table
from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import Checkpoint, Fixed, Setting, WeightNames, read_settings, write_settings

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
    Setting("intermediate_size", "mlp_dim", 3072),
    Setting("layer_norm_eps", "norm_eps", 1e-12),
]
DECODER_SETTINGS = [
    Setting("decoder_hidden_size", "decoder_width", 512),
    Setting("decoder_num_hidden_layers", "decoder_depth", 8),
    Setting("decoder_num_attention_heads", "decoder_heads", 16),
    Setting("decoder_intermediate_size", "decoder_mlp_dim", 2048),
    Setting("mask_ratio", "mask_ratio", 0.75),
    Setting("norm_pix_loss", "normalize", False),
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

# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_config(folder: Path | str) -> VisionTransformerConfig:
    """Our config of a published folder. Raises CourseError when the folder holds another kind of model."""
    config = _read(folder)
    match config.get("model_type"):
        case "vit":
            return _read_vit(config, folder)
        case "deit":
            return _read_deit(config, folder)
        case "dinov2" | "dinov2_with_registers":
            return _read_dinov2(config, folder)
    raise CourseError(
        f"{folder} holds a model of type {config.get('model_type')!r}; this reads vit, deit, dinov2, dinov2_with_registers"
    )


def read_autoencoder_config(folder: Path | str) -> MaskedAutoencoderConfig:
    """Our config of a published masked autoencoder. Raises CourseError when the folder holds another kind of model."""
    config = _read(folder)
    if config.get("model_type") != "vit_mae":
        raise CourseError(
            f"{folder} holds a model of type {config.get('model_type')!r}; a masked autoencoder is a vit_mae"
        )
    encoder = VisionTransformerConfig(**read_settings(VIT_SETTINGS, config), positions="sine-cosine")
    return MaskedAutoencoderConfig(encoder, **read_settings(DECODER_SETTINGS, config))


def _read(folder: Path | str) -> dict[str, Any]:
    config = pretrained.read_config(folder)
    sides = config.get("patch_size")
    if isinstance(sides, list):
        if len(set(sides)) != 1:
            raise CourseError(f"patch_size is {sides} in {folder}; patches here are square")
        config["patch_size"] = sides[0]
    return config


def _read_vit(config: Mapping[str, Any], folder: Path | str) -> VisionTransformerConfig:
    ours = read_settings([*VIT_SETTINGS, Fixed("pooler_act", "tanh")], config)
    if config.get("pooler_output_size", ours["width"]) not in (None, ours["width"]):
        raise CourseError(f"pooler_output_size {config['pooler_output_size']} differs from hidden_size {ours['width']}")
    # What the file holds decides: some published ViTModels (DINO's) have no pooler, and no setting that says so.
    with Checkpoint(folder) as checkpoint:
        classifies = "classifier.weight" in checkpoint.shapes
        pooler = not classifies and "pooler.dense.weight" in checkpoint.shapes
    return VisionTransformerConfig(**ours, **(_classes(config) if classifies else {}), pooler=pooler)


def _read_deit(config: Mapping[str, Any], folder: Path | str) -> VisionTransformerConfig:
    with Checkpoint(folder) as checkpoint:
        if "distillation_classifier.weight" not in checkpoint.shapes:
            raise CourseError(
                f"{folder} holds a DeiT without its two heads; this reads DeiTForImageClassificationWithTeacher"
            )
    ours = read_settings(VIT_SETTINGS, config)
    return VisionTransformerConfig(**ours, **_classes(config), distillation_token=True)


def _read_dinov2(config: Mapping[str, Any], folder: Path | str) -> VisionTransformerConfig:
    architecture = (config.get("architectures") or [""])[0]
    if "Classification" in architecture:
        raise CourseError(f"{folder} holds {architecture}; of DINOv2 this reads the encoder, without a head")
    registers = config["model_type"] == "dinov2_with_registers"
    ours = read_settings(REGISTERS_SETTINGS if registers else PLAIN_DINOV2_SETTINGS, config)
    swiglu, ratio = ours.pop("swiglu"), ours.pop("mlp_ratio")
    if registers:
        ours |= {"antialias": True, "mask_token": True}
    mlp_dim = _mlp_dim(ours["width"], ratio, swiglu)
    return VisionTransformerConfig(**ours, mlp_dim=mlp_dim, mlp="swiglu" if swiglu else "gelu")


def _classes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Published configs count classes by naming them; without names the class assumes two."""
    names = config.get("id2label")
    if not names:
        return {"classes": config.get("num_labels") or 2}
    return {"classes": len(names), "labels": tuple(names[number] for number in sorted(names, key=int))}


def _mlp_dim(width: int, ratio: float, swiglu: bool) -> int:
    """DINOv2's feed-forward width: a SwiGLU has three matrices instead of two, so it takes two thirds, in eights."""
    mlp_dim = int(width * ratio)
    return (int(mlp_dim * 2 / 3) + 7) // 8 * 8 if swiglu else mlp_dim


# ── Writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def table(config: VisionTransformerConfig) -> WeightNames:
    """The published names of a config's weights. Raises CourseError when no published class is such a model."""
    architecture = _published_class(config)
    return dinov2_table(config) if architecture.startswith("Dinov2") else vit_table(config, architecture)


def write_config(config: VisionTransformerConfig) -> dict[str, Any]:
    """The published settings of our config. Raises CourseError when no published class is such a model."""
    architecture, ours = _published_class(config), asdict(config)
    if architecture.startswith("Dinov2"):
        swiglu = config.mlp == "swiglu"
        ours |= {"swiglu": swiglu, "mlp_ratio": _ratio(config, swiglu)}
        kind = "dinov2" if architecture == "Dinov2Model" else "dinov2_with_registers"
        written = write_settings(PLAIN_DINOV2_SETTINGS if kind == "dinov2" else REGISTERS_SETTINGS, ours)
    else:
        kind = "deit" if architecture.startswith("DeiT") else "vit"
        written = write_settings(VIT_SETTINGS, ours) | _labels(config)
    return {"model_type": kind, "architectures": [architecture], **written}


def write_autoencoder_config(config: MaskedAutoencoderConfig) -> dict[str, Any]:
    """The published settings of our masked autoencoder. Raises CourseError when its encoder is no plain ViT."""
    encoder = config.encoder
    if encoder.registers or encoder.positions not in ("sine-cosine", "learned") or encoder.classes:
        raise CourseError(
            "a published masked autoencoder has a plain encoder: no registers, no rotary positions, no head"
        )
    ours = asdict(config) | {"decoder_mlp_dim": config.decoder_mlp_dim or 4 * config.decoder_width}
    written = write_settings(VIT_SETTINGS, asdict(encoder)) | write_settings(DECODER_SETTINGS, ours)
    return {"model_type": "vit_mae", "architectures": ["ViTMAEForPreTraining"], **written}


def _labels(config: VisionTransformerConfig) -> dict[str, dict]:
    """How published configs name their classes, and so count them; a ViT without a head has none."""
    labels = config.labels or [f"LABEL_{number}" for number in range(config.classes)]
    if not labels:
        return {}
    return {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }


def _published_class(config: VisionTransformerConfig) -> str:
    """The class of `transformers` that a config is. Raises CourseError when it is none."""
    plain = config.positions == "learned" and config.pooling == "class"
    if plain and config.layer_scale is None:
        added = config.registers or config.antialias or config.mask_token or config.drop_path
        if config.mlp == "gelu" and not added and not (config.classes and config.pooler):
            if config.distillation_token and config.classes:
                return "DeiTForImageClassificationWithTeacher"
            if not config.distillation_token:
                return "ViTForImageClassification" if config.classes else "ViTModel"
    elif plain and not (config.classes or config.pooler or config.distillation_token):
        if config.registers and config.antialias and config.mask_token:
            return "Dinov2WithRegistersModel"
        if not config.registers and not config.antialias:
            return "Dinov2Model"
    raise CourseError(
        "no published class is a model with these choices, so no other program could read it. Published are: a ViT or a "
        "DeiT (learned positions, class token, gelu, nothing added), a DINOv2 (with layer_scale, without a head) and a "
        f"DINOv2 with registers (with antialias and mask_token too). Given: {config}"
    )


def _ratio(config: VisionTransformerConfig, swiglu: bool) -> int:
    """The whole ratio that gives this feed-forward width; DINOv2's config knows no other."""
    for ratio in range(1, 4 * config.mlp_dim // config.width + 2):
        if _mlp_dim(config.width, ratio, swiglu) == config.mlp_dim:
            return ratio
    raise CourseError(
        f"DINOv2 has no whole mlp_ratio for a feed-forward width of {config.mlp_dim} at width {config.width}"
    )
