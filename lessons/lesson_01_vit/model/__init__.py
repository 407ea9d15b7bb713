"""The Vision Transformer in PyTorch, a room per part, to be read in this order.

config.py        what a model is made of
patches.py       an image becomes a sequence
positions.py     where each patch stood
pooling.py       many tokens become one vector
vit.py           the whole, built on shared.transformer
mae.py           learning without labels: hide most patches and paint them back (arXiv:2111.06377)
distillation.py  learning from a convolutional teacher (arXiv:2012.12877)
huggingface.py, huggingface_names.py   the settings and names of published checkpoints
"""

from lessons.lesson_01_vit.model.config import MaskedAutoencoderConfig, VisionTransformerConfig
from lessons.lesson_01_vit.model.distillation import (
    ConvolutionalTeacher,
    DistilledVisionTransformer,
    hard_distillation_loss,
)
from lessons.lesson_01_vit.model.mae import MaskedAutoencoder, masked_loss, random_masking
from lessons.lesson_01_vit.model.patches import PatchEmbedding, patchify, unpatchify
from lessons.lesson_01_vit.model.pooling import AttentionPooling
from lessons.lesson_01_vit.model.positions import interpolate_positions, patch_coordinates, sine_cosine_positions
from lessons.lesson_01_vit.model.vit import VisionTransformer

__all__ = [
    "AttentionPooling",
    "ConvolutionalTeacher",
    "DistilledVisionTransformer",
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
