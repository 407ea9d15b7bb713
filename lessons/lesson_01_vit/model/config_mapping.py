"""Map the `config.json` of published checkpoints to our configs, and back; weight_names.py maps the weights.

Supported are `ViTModel`, `ViTForImageClassification`, `DeiTForImageClassificationWithTeacher`, `ViTMAEForPreTraining`,
`Dinov2Model` and `Dinov2WithRegistersModel`, in the folder layout of the Hugging Face hub.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lessons.lesson_01_vit.model.config import MaskedAutoencoderConfig, VisionTransformerConfig
from lessons.lesson_01_vit.model.weight_names import dinov2_weight_names, vit_weight_names
from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import Checkpoint, Fixed, Setting, WeightNames, read_settings, write_settings

SETTINGS: list[Setting | Fixed] = [
    Setting("image_size", "image_size", 224),
    Setting("num_channels", "channels", 3),
    Setting("hidden_size", "width", 768),
    Setting("num_hidden_layers", "depth", 12),
    Setting("num_attention_heads", "heads", 12),
    Setting("qkv_bias", "qkv_bias", True),
    Fixed("hidden_act", "gelu"),
]
VIT_SETTINGS: list[Setting | Fixed] = [
    *SETTINGS,
    Setting("patch_size", "patch_size", 16),
    Setting("intermediate_size", "mlp_dim", 3072),
    Setting("layer_norm_eps", "norm_eps", 1e-12),
]
DECODER_SETTINGS: list[Setting | Fixed] = [
    Setting("decoder_hidden_size", "decoder_width", 512),
    Setting("decoder_num_hidden_layers", "decoder_depth", 8),
    Setting("decoder_num_attention_heads", "decoder_heads", 16),
    Setting("decoder_intermediate_size", "decoder_mlp_dim", 2048),
    Setting("mask_ratio", "mask_ratio", 0.75),
    Setting("norm_pix_loss", "normalize", False),
]
DINOV2_SETTINGS: list[Setting | Fixed] = [
    *SETTINGS,
    Setting("mlp_ratio", "mlp_ratio", 4),
    Setting("layer_norm_eps", "norm_eps", 1e-6),
    Setting("layerscale_value", "layer_scale", 1.0),
    Setting("drop_path_rate", "drop_path", 0.0),
    Setting("use_swiglu_ffn", "swiglu", False),
]
PLAIN_DINOV2_SETTINGS: list[Setting | Fixed] = [
    *DINOV2_SETTINGS,
    Setting("patch_size", "patch_size", 14),
    Setting("use_mask_token", "mask_token", True),
]
REGISTERS_SETTINGS: list[Setting | Fixed] = [
    *DINOV2_SETTINGS,
    Setting("patch_size", "patch_size", 16),
    Setting("num_register_tokens", "registers", 4),
    # Written in published files; the published class supports no other values.
    Fixed("interpolate_antialias", True),
    Fixed("interpolate_offset", 0.0),
]

# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_config(folder: Path | str) -> VisionTransformerConfig:
    """Return our config of a published ViT, DeiT or DINOv2. Raises CourseError when the folder holds another model."""
    config = _read(folder)
    match config.get("model_type"):
        case "vit":
            return _read_vit(config, folder)
        case "deit":
            return _read_deit(config, folder)
        case "dinov2" | "dinov2_with_registers":
            return _read_dinov2(config, folder)
    raise CourseError(
        f"{folder} holds a model of type {config.get('model_type')!r}; "
        "expected vit, deit, dinov2 or dinov2_with_registers"
    )


def read_autoencoder_config(folder: Path | str) -> MaskedAutoencoderConfig:
    """Return our config of a published masked autoencoder. Raises CourseError for a folder of another model."""
    config = _read(folder)
    if config.get("model_type") != "vit_mae":
        raise CourseError(f"{folder} holds a model of type {config.get('model_type')!r}; expected vit_mae")
    encoder = VisionTransformerConfig(**read_settings(VIT_SETTINGS, config), positions="sine-cosine")
    return MaskedAutoencoderConfig(encoder, **read_settings(DECODER_SETTINGS, config))


def _read(folder: Path | str) -> dict[str, Any]:
    config = pretrained.read_config(folder)
    patch_size = config.get("patch_size")
    if isinstance(patch_size, list):
        if len(set(patch_size)) != 1:
            raise CourseError(f"patch_size is {patch_size} in {folder}; only square patches are supported")
        config["patch_size"] = patch_size[0]
    return config


def _read_vit(config: Mapping[str, Any], folder: Path | str) -> VisionTransformerConfig:
    fields = read_settings([*VIT_SETTINGS, Fixed("pooler_act", "tanh")], config)
    width = fields["width"]
    if config.get("pooler_output_size", width) not in (None, width):
        raise CourseError(f"pooler_output_size {config['pooler_output_size']} differs from hidden_size {width}")
    # Decided by the weights: some published ViTModels (DINO's) have no pooler, and no setting in their configs.
    with Checkpoint(folder) as checkpoint:
        classifier = "classifier.weight" in checkpoint.shapes
        pooler = not classifier and "pooler.dense.weight" in checkpoint.shapes
    return VisionTransformerConfig(**fields, **(_classes(config) if classifier else {}), pooler=pooler)


def _read_deit(config: Mapping[str, Any], folder: Path | str) -> VisionTransformerConfig:
    with Checkpoint(folder) as checkpoint:
        if "distillation_classifier.weight" not in checkpoint.shapes:
            raise CourseError(
                f"{folder} holds a DeiT without its two heads; expected DeiTForImageClassificationWithTeacher"
            )
    fields = read_settings(VIT_SETTINGS, config)
    return VisionTransformerConfig(**fields, **_classes(config), distillation_token=True)


def _read_dinov2(config: Mapping[str, Any], folder: Path | str) -> VisionTransformerConfig:
    architecture = (config.get("architectures") or [""])[0]
    if "Classification" in architecture:
        raise CourseError(f"{folder} holds {architecture}; only DINOv2 encoders without a head are supported")
    registers = config["model_type"] == "dinov2_with_registers"
    fields = read_settings(REGISTERS_SETTINGS if registers else PLAIN_DINOV2_SETTINGS, config)
    if registers:
        fields |= {"antialias": True, "mask_token": True}
    mlp_dim = _mlp_dim(fields["width"], fields.pop("mlp_ratio"), fields["swiglu"])
    return VisionTransformerConfig(**fields, mlp_dim=mlp_dim)


def _classes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return number and names of classes: published configs list names; without names or a number, the default is 2."""
    names = config.get("id2label")
    if not names:
        return {"classes": config.get("num_labels") or 2}
    return {"classes": len(names), "labels": tuple(names[label] for label in sorted(names, key=int))}


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
        settings = write_settings(VIT_SETTINGS, fields) | _labels(config)
    return {"model_type": model_type, "architectures": [architecture], **settings}


def write_autoencoder_config(config: MaskedAutoencoderConfig) -> dict[str, Any]:
    """Return the published settings of a masked autoencoder. Raises CourseError when its encoder is no plain ViT."""
    encoder = config.encoder
    if encoder.registers or encoder.positions not in ("sine-cosine", "learned") or encoder.classes:
        raise CourseError(
            "a published masked autoencoder has a plain encoder: no registers, no rotary positions, no head"
        )
    fields = asdict(config) | {"decoder_mlp_dim": config.decoder_mlp_dim or 4 * config.decoder_width}
    settings = write_settings(VIT_SETTINGS, asdict(encoder)) | write_settings(DECODER_SETTINGS, fields)
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
