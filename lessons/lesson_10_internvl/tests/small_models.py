"""Small published InternVLs with odd sizes, and inputs for the published class and for ours."""

import torch
from transformers import InternVLConfig, InternVLForConditionalGeneration, LlamaConfig, Qwen2Config, Qwen3Config

from shared.testing import redraw_weights

SIDE = 14  # pixels of a tile; patches of 3 pixels leave two pixels over: 4 × 4 patches
IMAGE = 31
START, END = 32, 33
TOKENS = 4  # visual tokens of a tile
VISION = {
    "hidden_size": 20,
    "intermediate_size": 28,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "num_channels": 2,
    "patch_size": [3, 3],
    "image_size": [SIDE, SIDE],
    "layer_norm_eps": 1e-3,
    "attention_bias": True,
}
LARGE = {"use_qk_norm": True, "norm_type": "rms_norm", "attention_bias": False}
"""What differs in the largest InternViT."""
TEXT = {
    "vocab_size": 37,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "intermediate_size": 36,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-3,
}
LANGUAGES = {
    "qwen2": lambda: Qwen2Config(**TEXT, rope_parameters={"rope_type": "default", "rope_theta": 50.0}),
    "qwen3": lambda: Qwen3Config(**TEXT, head_dim=10, rope_parameters={"rope_type": "default", "rope_theta": 70.0}),
    "llama": lambda: LlamaConfig(**TEXT, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 90.0}),
}


def published_model(language="qwen2", vision=None, **changes):
    torch.manual_seed(3)
    config = InternVLConfig(
        vision_config={**VISION, **(vision or {})},
        text_config=LANGUAGES[language](),
        image_token_id=IMAGE,
        **{"tie_word_embeddings": False} | changes,
    )
    return redraw_weights(InternVLForConditionalGeneration(config), buffers=True)


def image(tiles, tokens=TOKENS):
    return [START, *[IMAGE] * (tiles * tokens), END]


def rows(tokens=TOKENS):
    """Three rows of unequal length, with images of 1, 3 and 2 tiles; padded at the end."""
    texts = [[1, 2, *image(1, tokens), 3, *image(3, tokens), 4, 5], [*image(2, tokens), 7, 8], [9, 10, 11]]
    longest = max(map(len, texts))
    token_ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
    segments = torch.tensor([[0] * len(text) + [-1] * (longest - len(text)) for text in texts])
    return token_ids, random_tiles(6), segments


def random_tiles(count, side=SIDE, seed=0):
    return torch.randn(count, 2, side, side, generator=torch.Generator().manual_seed(seed))
