"""Memory of the key–value cache per token: multi-head, grouped-query and latent attention."""

import torch

from lessons.lesson_07_recipes.model.deepseek_config import DeepSeekConfig
from shared.transformer import DecoderConfig, KVCache


def cached_values_per_token(config: DecoderConfig) -> int:
    """Return how many numbers a decoder caches per token, in all layers.

    Multi-head attention caches 2 · heads · head_dim per layer. Grouped queries cache 2 · kv_heads · head_dim
    (arXiv:2305.13245). Latent attention caches latent_dim + rotary_dim, whatever the number of heads
    (arXiv:2405.04434, table 1).
    """
    if isinstance(config, DeepSeekConfig):
        return config.depth * (config.latent_dim + config.rotary_dim)
    return config.depth * 2 * config.kv_heads * config.width_per_head


def cache_bytes_per_token(config: DecoderConfig, dtype: torch.dtype = torch.bfloat16) -> int:
    """Return the bytes of a decoder's key–value cache per token of one text."""
    return cached_values_per_token(config) * dtype.itemsize


def measured_cache_bytes(cache: KVCache, depth: int) -> int:
    """Return the bytes that the tensors of a cache occupy, all rows and free slots included."""
    tensors = [tensor for layer in range(depth) for tensor in (cache[layer].keys, cache[layer].values)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)
