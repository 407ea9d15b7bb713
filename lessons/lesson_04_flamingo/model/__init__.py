"""Flamingo in PyTorch, a room per part, to be read in this order.

config.py      what is added to an eye and a language model
resampler.py   an image of any size becomes a fixed number of tokens
gated.py       cross-attention that enters through a gate
sequences.py   documents of images and text: which token looks at which image, prompts by example
flamingo.py    the whole: reading, writing, what learns
config_mapping.py, weight_names.py   the settings and names of published checkpoints
"""

from lessons.lesson_04_flamingo.model.config import FlamingoConfig, ResamplerConfig
from lessons.lesson_04_flamingo.model.flamingo import Flamingo, text_loss, training_stage, words_of
from lessons.lesson_04_flamingo.model.gated import GatedCrossAttention, gated
from lessons.lesson_04_flamingo.model.resampler import PerceiverResampler
from lessons.lesson_04_flamingo.model.sequences import Interleaved, few_shot, interleave, latest_image, media_mask, sees

__all__ = [
    "Flamingo",
    "FlamingoConfig",
    "GatedCrossAttention",
    "Interleaved",
    "PerceiverResampler",
    "ResamplerConfig",
    "few_shot",
    "gated",
    "interleave",
    "latest_image",
    "media_mask",
    "sees",
    "text_loss",
    "training_stage",
    "words_of",
]
