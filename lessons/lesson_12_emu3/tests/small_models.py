"""Small Emu3s with odd sizes: the published class, ours, and inputs for both."""

import random

import torch
from transformers import Emu3Config as PublishedConfig
from transformers import Emu3ForConditionalGeneration, Emu3VQVAE, Emu3VQVAEConfig

from lessons.lesson_12_emu3.model import Emu3, Emu3Config, VisionTokenizerConfig, vision_names
from shared.testing import redraw_weights
from shared.transformer import DecoderConfig

CODES = 21
TOKENIZER = {
    "codebook_size": CODES,
    "embed_dim": 5,
    "latent_channels": 5,
    "in_channels": 2,
    "out_channels": 3,
    "temporal_downsample_factor": 2,
    "base_channels": 32,
    "channel_multiplier": [1, 2],
    "num_res_blocks": 1,
    "attn_resolutions": [1],
    "hidden_size": 64,
    "num_attention_heads": 2,
}
TEXT = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "rms_norm_eps": 1e-3,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 3,
}


def shuffled_names(text_tokens=20, codes=CODES):
    """Return a vocabulary in which the token ids of codes and markers are in no order, among those of text."""
    names = [*vision_names(codes), *(f"text {place}" for place in range(text_tokens))]
    random.Random(0).shuffle(names)
    return {name: token_id for token_id, name in enumerate(names)}


NAMES = shuffled_names()
TEXT_IDS = sorted(token_id for name, token_id in NAMES.items() if name.startswith("text"))


def published_model(tokenizer=None, names=None, tied=False, **changes):
    torch.manual_seed(3)
    config = PublishedConfig(
        vq_config=TOKENIZER | (tokenizer or {}),
        text_config=TEXT | changes,
        vocabulary_map=names or NAMES,
        tie_word_embeddings=tied,
    )
    return redraw_weights(Emu3ForConditionalGeneration(config), buffers=True)


def published_tokenizer(**changes):
    torch.manual_seed(5)
    return redraw_weights(Emu3VQVAE(Emu3VQVAEConfig(**TOKENIZER | changes)), buffers=True)


def small_tokenizer_config(**changes):
    sizes = {"codebook_size": CODES, "code_dim": 3, "latent_channels": 3, "width": 32, "multipliers": (1, 1)}
    options = {"blocks": 1, "attention_levels": (), "temporal_factor": 2}
    return VisionTokenizerConfig(**sizes | options | changes)


def small_config(tied=False, **changes):
    language = DecoderConfig(61, width=16, depth=2, heads=4, kv_heads=2, mlp_dim=24, max_positions=64, tied=tied)
    return Emu3Config(language, small_tokenizer_config(), NAMES, **changes)


def small_model(**changes):
    torch.manual_seed(0)
    return redraw_weights(Emu3(small_config(**changes)), buffers=True)


def random_images(count, height=6, width=10, channels=2, seed=0):
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(seed))


def random_videos(count, frames=4, height=6, width=10, channels=2, seed=0):
    return torch.randn(count, frames, channels, height, width, generator=torch.Generator().manual_seed(seed))
