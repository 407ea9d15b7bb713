"""Emu3 in PyTorch. Read the files in this order:

config.py              settings of the decoder and of the vision tokenizer
convolution3d.py       3-D convolutions that are causal in time; halving and doubling the number of frames
spatial.py             residual blocks and attention within a frame; norms that the codes modulate
vision_tokenizer.py    videos and images ↔ grids of codes
vocabulary.py          codes and markers as tokens of one vocabulary
frames.py              grids of codes as rows of tokens, and back
prompt.py              prompts, and the size of a generated image
emu3.py                the whole model
generation.py          constrained decoding with classifier-free guidance
preference.py          the loss of vision tokens, and DPO on generated images
clip_tokenizer.py      a small 3-D tokenizer, to be trained on clips of the toy world
rectified_flow.py      noise → data along straight lines
video_transformer.py   an asymmetric diffusion transformer over the latents of videos
image_processing.py    photographs → padded batches
config_mapping.py, weight_names.py   settings and weights as published
"""

from lessons.lesson_12_emu3.model.config import Emu3Config, VisionTokenizerConfig
from lessons.lesson_12_emu3.model.emu3 import Emu3
from lessons.lesson_12_emu3.model.frames import FrameGrid, vision_token_ids
from lessons.lesson_12_emu3.model.generation import VisionSampling, generate_frames, guide_logits
from lessons.lesson_12_emu3.model.vision_tokenizer import VisionTokenizer
from lessons.lesson_12_emu3.model.vocabulary import VisionMarkers, VisionVocabulary, vision_names

__all__ = [
    "Emu3",
    "Emu3Config",
    "FrameGrid",
    "VisionMarkers",
    "VisionSampling",
    "VisionTokenizer",
    "VisionTokenizerConfig",
    "VisionVocabulary",
    "generate_frames",
    "guide_logits",
    "vision_names",
    "vision_token_ids",
]
