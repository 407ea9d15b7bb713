"""Small Chameleons with odd sizes: the published class, ours, and inputs for both."""

import random

import torch
from transformers import ChameleonConfig as PublishedConfig
from transformers import ChameleonForConditionalGeneration, ChameleonVQVAE, ChameleonVQVAEConfig

from lessons.lesson_11_chameleon.model import BlockDesign, Chameleon, ChameleonConfig, VQConfig, add_image_names
from shared.testing import redraw_weights
from shared.transformer import DecoderConfig

CODES, SIDE, TOKENS = 24, 13, 9  # 13 pixels are halved to 6 and 3: 9 codes
VQ = {
    "resolution": SIDE,
    "in_channels": 2,
    "base_channels": 32,
    "channel_multiplier": [1, 2, 1],
    "num_res_blocks": 2,
    "attn_resolutions": [6],
    "latent_channels": 10,
    "embed_dim": 6,
    "num_embeddings": CODES,
}
TEXT = {
    "vocab_size": 53,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-3,
}
STYLES = {"7B": {"swin_norm": False}, "34B": {"swin_norm": True, "model_parallel_size": 4}}


def shuffled_names(text_tokens=26, codes=CODES):
    """Return a vocabulary in which the token ids of codes are in no order, among those of text."""
    names = list(add_image_names({f"text {place}": place for place in range(text_tokens)}, codes))
    random.Random(0).shuffle(names)
    return {name: token_id for token_id, name in enumerate(names)}


NAMES = shuffled_names()
IMAGE, BEGIN, END = (NAMES[name] for name in ("<image>", "<racm3:break>", "<eoss>"))
TEXT_IDS = sorted(token_id for name, token_id in NAMES.items() if name.startswith("text"))


def published_model(vq=None, names=None, **changes):
    torch.manual_seed(3)
    config = PublishedConfig(
        vq_config={**VQ, **(vq or {})}, vocabulary_map=names or NAMES, **{**TEXT, "pad_token_id": None, **changes}
    )
    return redraw_weights(ChameleonForConditionalGeneration(config), buffers=True)


def published_tokenizer(**changes):
    torch.manual_seed(5)
    return redraw_weights(ChameleonVQVAE(ChameleonVQVAEConfig(**{**VQ, **changes})), buffers=True)


def small_config(codes=CODES, side=8, **design):
    """Return a config of ours with 4 codes per image of 8 × 8 pixels."""
    names = add_image_names({f"text {place}": place for place in range(20)}, codes)
    language = DecoderConfig(len(names), width=16, depth=2, heads=4, kv_heads=2, mlp_dim=24, max_positions=48)
    tokenizer = VQConfig(side, 1, 32, (1, 1, 1), blocks=1, latent_channels=8, code_dim=4, codebook_size=codes)
    return ChameleonConfig(language, BlockDesign(**design), tokenizer, names)


def small_model(**changes):
    torch.manual_seed(0)
    return redraw_weights(Chameleon(small_config(**changes)))


def image(tokens=TOKENS):
    return [BEGIN, *[IMAGE] * tokens, END]


def rows(tokens=TOKENS):
    """Three rows of unequal length, with one, two and no images; padded at the end."""
    a, b, c, *_ = TEXT_IDS
    texts = [[a, b, *image(tokens), c], [*image(tokens), a, *image(tokens), b, c], [c, b, a, a]]
    longest = max(map(len, texts))
    token_ids = torch.tensor([text + [a] * (longest - len(text)) for text in texts])
    segments = torch.tensor([[0] * len(text) + [-1] * (longest - len(text)) for text in texts])
    return token_ids, random_images(3), segments


def random_images(count, side=SIDE, channels=2, seed=0):
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(seed))
