"""The Vision Transformer in PyTorch; read the files in this order.

config.py          settings of a model
patches.py         image → sequence of patch tokens
positions.py       positions of the patches
vit.py             the whole model, built on shared.transformer
mae.py             masked autoencoder: pretraining without labels (arXiv:2111.06377)
distillation.py    distillation from a convolutional teacher (arXiv:2012.12877)
config_mapping.py, weight_names.py   settings and weight names of published checkpoints
"""

from lessons.lesson_01_vit.model.config import MaskedAutoencoderConfig, VisionTransformerConfig
from lessons.lesson_01_vit.model.distillation import ConvolutionalTeacher, hard_distillation_loss
from lessons.lesson_01_vit.model.mae import MaskedAutoencoder, masked_loss, random_masking
from lessons.lesson_01_vit.model.patches import PatchEmbedding, patchify, unpatchify
from lessons.lesson_01_vit.model.positions import interpolate_positions, patch_coordinates, sine_cosine_positions
from lessons.lesson_01_vit.model.vit import AttentionPooling, VisionTransformer

__all__ = [
    "AttentionPooling",
    "ConvolutionalTeacher",
    "MaskedAutoencoder",
    "MaskedAutoencoderConfig",
    "PatchEmbedding",
    "VisionTransformer",
    "VisionTransformerConfig",
    "hard_distillation_loss",
    "interpolate_positions",
    "masked_loss",
    "patch_coordinates",
    "patchify",
    "random_masking",
    "sine_cosine_positions",
    "unpatchify",
]
