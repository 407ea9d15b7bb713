"""The parts that the course's transformers are built from, and the Llama-style decoder made of them."""

from shared.transformer.attention import Attention, Scores
from shared.transformer.block import MLP, Block, SwiGLU
from shared.transformer.decoder import Decoder, DecoderConfig, positions_within_segments
from shared.transformer.generation import generate, stream
from shared.transformer.kv_cache import KVCache, LayerCache
from shared.transformer.mean_attention import mean_attention
from shared.transformer.normalization import LayerNorm, RMSNorm
from shared.transformer.rotary import Rotary, rotate
from shared.transformer.rotary_scaling import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    RotaryScaling,
    YarnScaling,
    yarn_magnitude,
)
from shared.transformer.sampling import Constraint, Sampling, sample, seeded_generator, token_probabilities
from shared.transformer.soft_cap import soft_cap
from shared.transformer.vision_language import PromptedModel, VisionLanguageModel

__all__ = [
    "MLP",
    "Attention",
    "Block",
    "Constraint",
    "Decoder",
    "DecoderConfig",
    "DynamicScaling",
    "KVCache",
    "LayerCache",
    "LayerNorm",
    "LinearScaling",
    "Llama3Scaling",
    "PromptedModel",
    "RMSNorm",
    "Rotary",
    "RotaryScaling",
    "Sampling",
    "Scores",
    "SwiGLU",
    "VisionLanguageModel",
    "YarnScaling",
    "generate",
    "mean_attention",
    "positions_within_segments",
    "rotate",
    "sample",
    "seeded_generator",
    "soft_cap",
    "stream",
    "token_probabilities",
    "yarn_magnitude",
]
