"""CLIP and SigLIP in PyTorch; read the files in this order.

config.py              settings of both models and of their encoders
losses.py              CLIP's loss (InfoNCE) and SigLIP's loss (sigmoid)
text_encoder.py        the text encoder
vision_encoder.py      published image encoders; the image encoder is lesson 1's VisionTransformer
dual_encoder.py        the whole models
zero_shot.py           zero-shot classification and retrieval
distributed_losses.py  both losses for a batch split over processes
gradient_cache.py      a batch larger than memory
text_cleaning.py, tokenizer.py, preprocessing.py   captions → token ids, photographs → tensors, as in OpenAI's CLIP
preprocessing_config.py  the settings of published image processors
config_mapping.py, weight_names.py   settings and weight names of published checkpoints
pretrained.py          the shipped CLIP of the toy world as a frozen vision encoder
"""

from lessons.lesson_02_clip.model.config import (
    CLIPConfig,
    SigLIPConfig,
    TextEncoderConfig,
    clip_vision_config,
    siglip_vision_config,
)
from lessons.lesson_02_clip.model.distributed_losses import gathered_info_nce, ring_sigmoid_loss
from lessons.lesson_02_clip.model.dual_encoder import CLIP, SigLIP
from lessons.lesson_02_clip.model.gradient_cache import encode_in_chunks
from lessons.lesson_02_clip.model.losses import info_nce, sigmoid_loss, similarity
from lessons.lesson_02_clip.model.text_encoder import TextEncoder
from lessons.lesson_02_clip.model.vision_encoder import read_vision_encoder, write_vision_encoder

__all__ = [
    "CLIP",
    "CLIPConfig",
    "SigLIP",
    "SigLIPConfig",
    "TextEncoder",
    "TextEncoderConfig",
    "clip_vision_config",
    "encode_in_chunks",
    "gathered_info_nce",
    "info_nce",
    "read_vision_encoder",
    "ring_sigmoid_loss",
    "siglip_vision_config",
    "sigmoid_loss",
    "similarity",
    "write_vision_encoder",
]
