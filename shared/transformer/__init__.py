"""The parts that the course's transformers are built from, and the Llama-style decoder made of them."""

from shared.transformer.attention import Attention
from shared.transformer.block import MLP, Block, SwiGLU
from shared.transformer.decoder import Decoder, DecoderConfig, positions_within_segments
from shared.transformer.generation import generate, stream
from shared.transformer.kv_cache import KVCache, LayerCache
from shared.transformer.mean_attention import mean_attention
from shared.transformer.normalization import LayerNorm, RMSNorm
from shared.transformer.rotary import Llama3Scaling, Rotary, rotate
from shared.transformer.sampling import Sampling, sample, seeded_generator, token_probabilities

__all__ = [
    "MLP",
    "Attention",
    "Block",
    "Decoder",
    "DecoderConfig",
    "KVCache",
    "LayerCache",
    "LayerNorm",
    "Llama3Scaling",
    "RMSNorm",
    "Rotary",
    "Sampling",
    "SwiGLU",
    "generate",
    "mean_attention",
    "positions_within_segments",
    "rotate",
    "sample",
    "seeded_generator",
    "stream",
    "token_probabilities",
]
