"""Flamingo in PyTorch, one part per file, to be read in this order.

config.py                 sizes of the parts between vision encoder and language model
resampler.py              an image of any size becomes a fixed number of tokens
gated_cross_attention.py  the inserted layers: cross-attention and MLP behind tanh gates
interleaved.py            documents of images and text, the image that each token attends to, few-shot prompts
flamingo.py               the whole model: forward pass, generation, loss
config_mapping.py, weight_names.py   settings and weight names of published checkpoints
"""

from lessons.lesson_04_flamingo.model.config import FlamingoConfig, ResamplerConfig
from lessons.lesson_04_flamingo.model.flamingo import Flamingo, text_loss, text_token_mask, training_stage
from lessons.lesson_04_flamingo.model.gated_cross_attention import GatedCrossAttention, gated_residual
from lessons.lesson_04_flamingo.model.interleaved import (
    InterleavedBatch,
    cross_attention_mask,
    cross_attention_matrix,
    few_shot_prompt,
    interleave,
    latest_image_index,
)
from lessons.lesson_04_flamingo.model.resampler import PerceiverResampler

__all__ = [
    "Flamingo",
    "FlamingoConfig",
    "GatedCrossAttention",
    "InterleavedBatch",
    "PerceiverResampler",
    "ResamplerConfig",
    "cross_attention_mask",
    "cross_attention_matrix",
    "few_shot_prompt",
    "gated_residual",
    "interleave",
    "latest_image_index",
    "text_loss",
    "text_token_mask",
    "training_stage",
]
