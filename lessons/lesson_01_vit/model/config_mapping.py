"""Map the `config.json` of published checkpoints to our configs, and back; weight_names.py maps the weights.

Supported are `ViTModel`, `ViTForImageClassification`, `DeiTForImageClassificationWithTeacher`, `ViTMAEForPreTraining`,
`Dinov2Model` and `Dinov2WithRegistersModel`, in the folder layout of the Hugging Face hub.
"""

import math
from collections.abc import Container, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lessons.lesson_01_vit.model.config import MaskedAutoencoderConfig, VisionTransformerConfig
from lessons.lesson_01_vit.model.weight_names import dinov2_weight_names, vit_weight_names
from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import (
    Checkpoint,
    Derived,
    Fixed,
    Row,
    Setting,
    WeightNames,
    build_config,
    read_part,
    read_settings,
    require_same,
    write_settings,
)
from shared.pretrained.setting_values import integer, number, optional, sides, square

SETTINGS: list[Row] = [
    Setting("num_channels", "channels", 3),
    Setting("hidden_size", "width", 768),
    Setting("num_hidden_layers", "depth", 12),
    Setting("num_attention_heads", "heads", 12),
    Setting("qkv_bias", "qkv_bias", True),
    Fixed("hidden_act", "gelu"),
    # No class has this setting, but all of them read it.
    Derived("head_dim", lambda fields: fields["width"] // fields["heads"]),
]
IMAGE_SIZE = Setting("image_size", "image_size", 224, accept=sides)
# For classes that take the square root of the number of patches and so cannot read others.
SQUARE_IMAGE_SIZE = replace(IMAGE_SIZE, accept=square)
PLAIN_SETTINGS: list[Row] = [
    *SETTINGS,
    Setting("patch_size", "patch_size", 16, accept=square),
    Setting("intermediate_size", "mlp_dim", 3072),
    Setting("layer_norm_eps", "norm_eps", 1e-12),
]
VIT_SETTINGS: list[Row] = [
    *PLAIN_SETTINGS,
    IMAGE_SIZE,
    Fixed("pooler_act", "tanh"),
    Derived("pooler_output_size", lambda fields: fields["width"]),
]
AUTOENCODER_SETTINGS: list[Row] = [*PLAIN_SETTINGS, SQUARE_IMAGE_SIZE]
DECODER_SETTINGS: list[Row] = [
    Setting("decoder_hidden_size", "decoder_width", 512),
    Setting("decoder_num_hidden_layers", "decoder_depth", 8),
    Setting("decoder_num_attention_heads", "decoder_heads", 16),
    Setting("decoder_intermediate_size", "decoder_mlp_dim", 2048),
    Setting("mask_ratio", "mask_ratio", 0.75, accept=number(above=True, below=1)),
    Setting("norm_pix_loss", "normalize", False),
]
DINOV2_SETTINGS: list[Row] = [
    *SETTINGS,
    SQUARE_IMAGE_SIZE,
    Setting("mlp_ratio", "mlp_ratio", 4),
    Setting("layer_norm_eps", "norm_eps", 1e-6),
    Setting("layerscale_value", "layer_scale", 1.0, accept=number(-math.inf)),
    Setting("drop_path_rate", "drop_path", 0.0, accept=number(below=1)),
    Setting("use_swiglu_ffn", "swiglu", False),
]
PLAIN_DINOV2_SETTINGS: list[Row] = [
    *DINOV2_SETTINGS,
    Setting("patch_size", "patch_size", 14, accept=square),
    Setting("use_mask_token", "mask_token", True),
]
REGISTERS_SETTINGS: list[Row] = [
    *DINOV2_SETTINGS,
    Setting("patch_size", "patch_size", 16, accept=square),
    Setting("num_register_tokens", "registers", 4, accept=integer(0)),
    # Written in published files; the published class supports no other values.
    Fixed("interpolate_antialias", True),
    Fixed("interpolate_offset", 0.0),
]

# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_config(folder: Path | str) -> VisionTransformerConfig:
    """Return our config of a published ViT, DeiT or DINOv2. Raises CourseError when the folder holds another model."""
    config = pretrained.read_config(folder, "vit", "deit", "dinov2", "dinov2_with_registers")
    if config["model_type"].startswith("dinov2"):
        return _parse_dinov2(config, folder)
    # Decided by the weights: some published ViTModels (DINO's) have no pooler, and no setting in their configs.
    with Checkpoint(folder) as checkpoint:
        return parse_config(config, checkpoint.shapes, folder)


def parse_config(config: Mapping[str, Any], tensors: Container[str], folder: Path | str) -> VisionTransformerConfig:
    """Return our config of published settings, beside which there are the `tensors` of these published names.

    Raises CourseError, naming the folder, for settings that our model does not support.
    """
    match config["model_type"]:
        case "vit":
            classifier = "classifier.weight" in tensors
            extra = _classes(config) if classifier else {"pooler": "pooler.dense.weight" in tensors}
            return build_config(VisionTransformerConfig, **read_settings(VIT_SETTINGS, config), **extra)
        case "deit":
            if "distillation_classifier.weight" not in tensors:
                raise CourseError(
                    f"{folder} holds a DeiT without its two heads; expected DeiTForImageClassificationWithTeacher"
                )
            fields = read_settings(VIT_SETTINGS, config) | _classes(config)
            return build_config(VisionTransformerConfig, **fields, distillation_token=True)
    return _parse_dinov2(config, folder)


def read_autoencoder_config(folder: Path | str) -> MaskedAutoencoderConfig:
    """Return our config of a published masked autoencoder. Raises CourseError for a folder of another model."""
    return parse_autoencoder_config(pretrained.read_config(folder, "vit_mae"))


def parse_autoencoder_config(config: Mapping[str, Any]) -> MaskedAutoencoderConfig:
    """Return our config of a masked autoencoder's published settings. Raises CourseError for unsupported ones."""
    fields = read_settings(AUTOENCODER_SETTINGS, config)
    encoder = build_config(VisionTransformerConfig, **fields, positions="sine-cosine")
    return build_config(MaskedAutoencoderConfig, encoder=encoder, **read_settings(DECODER_SETTINGS, config))


def _parse_dinov2(config: Mapping[str, Any], folder: Path | str) -> VisionTransformerConfig:
    if "Classification" in str(config.get("architectures")):
        raise CourseError(f"{folder} holds a classifier; only DINOv2 encoders without a head are supported")
    registers = config["model_type"] == "dinov2_with_registers"
    fields = read_settings(REGISTERS_SETTINGS if registers else PLAIN_DINOV2_SETTINGS, config)
    if registers:
        fields |= {"antialias": True, "mask_token": True}
    mlp_dim = _mlp_dim(fields["width"], fields.pop("mlp_ratio"), fields["swiglu"])
    return build_config(VisionTransformerConfig, **fields, mlp_dim=mlp_dim)


def _classes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return number and names of classes: published configs list names; without names or a number, the default is 2."""
    count = read_settings([Setting("num_labels", "classes", None, accept=optional(integer()))], config)["classes"]
    names = read_part(config, "id2label")
    if not names:
        return {"classes": count or 2}
    labels = tuple(names.get(str(index)) for index in range(len(names)))
    if not all(isinstance(label, str) for label in labels) or count not in (None, len(labels)):
        raise CourseError(
            f"id2label has {len(labels)} entries (and num_labels is {count}); expected a name for each of the classes "
            f"0 to {(count or len(labels)) - 1}"
        )
    return {"classes": len(labels), "labels": labels}


def _mlp_dim(width: int, ratio: float, swiglu: bool) -> int:
    """Return DINOv2's inner width: a SwiGLU has three linear layers, so it uses 2/3, rounded up to a multiple of 8."""
    mlp_dim = int(width * ratio)
    return (int(mlp_dim * 2 / 3) + 7) // 8 * 8 if swiglu else mlp_dim


# ── Writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def weight_names(config: VisionTransformerConfig) -> WeightNames:
    """Return the published names of a model's weights. Raises CourseError when no published class fits the config."""
    architecture = _published_class(config)
    if architecture.startswith("Dinov2"):
        return dinov2_weight_names(config)
    return vit_weight_names(config, architecture)


def write_config(config: VisionTransformerConfig) -> dict[str, Any]:
    """Return the published settings of our config. Raises CourseError when no published class fits it."""
    architecture, fields = _published_class(config), asdict(config)
    if architecture.startswith("Dinov2"):
        fields["mlp_ratio"] = _mlp_ratio(config)
        model_type = "dinov2" if architecture == "Dinov2Model" else "dinov2_with_registers"
        settings = write_settings(PLAIN_DINOV2_SETTINGS if model_type == "dinov2" else REGISTERS_SETTINGS, fields)
    else:
        model_type = "deit" if architecture.startswith("DeiT") else "vit"
        settings = write_settings([*PLAIN_SETTINGS, IMAGE_SIZE], fields) | _labels(config)
    written = {"model_type": model_type, "architectures": [architecture], **settings}
    heads = {"classifier.weight": config.classes, "pooler.dense.weight": config.pooler}
    heads["distillation_classifier.weight"] = config.distillation_token
    read = parse_config(written, [name for name, exists in heads.items() if exists], "the written folder")
    # Classes without names get the names that the published class gives them.
    require_same(config, read if config.labels else replace(read, labels=()))
    return written


def write_autoencoder_config(config: MaskedAutoencoderConfig) -> dict[str, Any]:
    """Return the published settings of a masked autoencoder. Raises CourseError when its encoder is no plain ViT."""
    config = replace(config, decoder_mlp_dim=config.decoder_mlp_dim or 4 * config.decoder_width)
    settings = write_settings(AUTOENCODER_SETTINGS, asdict(config.encoder)) | write_settings(
        DECODER_SETTINGS, asdict(config)
    )
    read = parse_autoencoder_config(settings)
    # The published class has the positions among its weights, whether they were learned or not.
    fixed = "sine-cosine" if config.encoder.positions == "learned" else config.encoder.positions
    require_same(replace(config.encoder, positions=fixed), read.encoder)
    require_same(replace(config, encoder=read.encoder), read)
    return {"model_type": "vit_mae", "architectures": ["ViTMAEForPreTraining"], **settings}


def _labels(config: VisionTransformerConfig) -> dict[str, dict]:
    """Return the names of the classes, by which published configs count them; nothing for a ViT without a head."""
    labels = config.labels or [f"LABEL_{index}" for index in range(config.classes)]
    if not labels:
        return {}
    return {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def _published_class(config: VisionTransformerConfig) -> str:
    """Return the class of `transformers` that a config describes. Raises CourseError when there is none."""
    plain = (
        config.positions == "learned"
        and config.pooling == "class"
        and config.activation == "gelu"
        and config.patch_bias
        and not (config.pre_norm or config.dropout)
    )
    if plain and config.layer_scale is None:
        added = config.registers or config.antialias or config.mask_token or config.drop_path or config.swiglu
        if not added and not (config.classes and config.pooler):
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
        "no published class fits this config, so no other program could read the checkpoint. Published are: a ViT or a "
        "DeiT (learned positions, class token, gelu, nothing added), a DINOv2 (with layer_scale, without a head) and a "
        f"DINOv2 with registers (with antialias and mask_token too). Given: {config}"
    )


def _mlp_ratio(config: VisionTransformerConfig) -> int:
    """Return the integer ratio that gives this inner width; DINOv2's config has no other setting for it."""
    for ratio in range(1, 4 * config.mlp_dim // config.width + 2):
        if _mlp_dim(config.width, ratio, config.swiglu) == config.mlp_dim:
            return ratio
    raise CourseError(
        f"DINOv2 has no integer mlp_ratio for an MLP with inner width {config.mlp_dim} at width {config.width}"
    )
