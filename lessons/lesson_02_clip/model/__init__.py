"""CLIP and SigLIP in PyTorch, a room per part, to be read in this order.

config.py              what both are made of
losses.py              what makes the two towers agree
vision_tower.py        the eye: lesson 1's Vision Transformer
text_tower.py          the reader
dual_encoder.py        the whole
zero_shot.py           what it is for: naming and finding, without having been taught to
distributed_losses.py  a batch spread over processes
gradient_cache.py      a batch larger than the memory
text_cleaning.py, tokenizer.py, preprocessing.py        from words and photographs to numbers, as OpenAI's CLIP wants them
huggingface.py, huggingface_names.py                    the settings and names of published checkpoints
"""

from lessons.lesson_02_clip.model.config import CLIPConfig, SigLIPConfig, TextTowerConfig, VisionTowerConfig
from lessons.lesson_02_clip.model.distributed_losses import gathered_info_nce, ring_sigmoid_loss
from lessons.lesson_02_clip.model.dual_encoder import CLIP, SigLIP
from lessons.lesson_02_clip.model.gradient_cache import encode_in_chunks
from lessons.lesson_02_clip.model.losses import info_nce, sigmoid_loss, similarity
from lessons.lesson_02_clip.model.text_tower import TextTower
from lessons.lesson_02_clip.model.vision_tower import VisionTower

__all__ = [
    "CLIP",
    "CLIPConfig",
    "SigLIP",
    "SigLIPConfig",
    "TextTower",
    "TextTowerConfig",
    "VisionTower",
    "VisionTowerConfig",
    "encode_in_chunks",
    "gathered_info_nce",
    "info_nce",
    "ring_sigmoid_loss",
    "sigmoid_loss",
    "similarity",
]
