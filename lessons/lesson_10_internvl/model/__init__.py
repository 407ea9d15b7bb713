"""InternVL3 and 3.5 in PyTorch. Read the files in this order:

config.py           settings of the model and of its vision encoder
tiling.py           an image → a grid of tiles and a thumbnail
vision_encoder.py   InternViT
projector.py        pixel unshuffle, and the projector
positions.py        V2PE: fractional positions for visual tokens
tile_encoder.py     the vision part: tiles → visual tokens
prompt.py, internvl.py   prompts of text and images; the whole model; answers
corpus_mixer.py     text alone and multimodal data in one stream
loss_averaging.py   token, square and sample averaging
preference.py       mixed preference optimization
router.py           256 or 64 visual tokens per tile (InternVL3.5-Flash)
deployment.py       the vision part in a process of its own
image_processing.py, config_mapping.py   photographs, settings and weights as published
"""

from lessons.lesson_10_internvl.model.config import InternVLConfig, VisionConfig
from lessons.lesson_10_internvl.model.corpus_mixer import Corpus, CorpusMixer
from lessons.lesson_10_internvl.model.internvl import InternVL
from lessons.lesson_10_internvl.model.loss_averaging import averaged_loss
from lessons.lesson_10_internvl.model.positions import STEPS, choose_step, draw_steps, token_steps, v2pe_positions
from lessons.lesson_10_internvl.model.prompt import Prompt
from lessons.lesson_10_internvl.model.tile_encoder import TileEncoder, VisualTokens, expand_images

__all__ = [
    "STEPS",
    "Corpus",
    "CorpusMixer",
    "InternVL",
    "InternVLConfig",
    "Prompt",
    "TileEncoder",
    "VisionConfig",
    "VisualTokens",
    "averaged_loss",
    "choose_step",
    "draw_steps",
    "expand_images",
    "token_steps",
    "v2pe_positions",
]
