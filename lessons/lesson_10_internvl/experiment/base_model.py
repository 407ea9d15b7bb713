"""The models of the experiment: lesson 0's decoder and lesson 2's image encoder, joined by new projectors.

The image encoder is frozen, so that every image is encoded once: the model reads features of 8 × 8 patches. Pixel
unshuffle leaves 4 × 4 visual tokens per image, or 2 × 2 where a router compresses it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from data.toybox.scene import Scene
from data.toybox.tensors import IMAGE_SIZE, render_tensors
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_02_clip.model.pretrained import load_vision_encoder, vision_features
from lessons.lesson_10_internvl.model import InternVL, InternVLConfig, VisionConfig
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import IMAGE_TOKEN
from shared.transformer import DecoderConfig

FEATURE_WIDTH, SIDE = 96, 8
"""Lesson 2's image encoder: 8 × 8 patches of 96 features per image."""
VISION = VisionConfig(IMAGE_SIZE, IMAGE_SIZE // SIDE, width=FEATURE_WIDTH, depth=1, heads=6, mlp_dim=FEATURE_WIDTH)
IMAGE_TOKENS = (SIDE // 2) ** 2
"""Visual tokens per image without compression."""


def build_model(language: DecoderConfig, image_token_id: int, **settings: Any) -> InternVL:
    """Return an untrained model that reads cached features; its own vision encoder is left out.

    settings  further fields of `InternVLConfig`
    """
    model = InternVL(InternVLConfig(VISION, language, image_token_id=image_token_id, **settings))
    model.tile_encoder.vision_encoder = nn.Identity()  # type: ignore[assignment]
    return model


def starting_model(device: str, **settings: Any) -> tuple[InternVL, Tokenizer]:
    """Return a model with lesson 0's decoder and a new projector, all weights trainable, and its tokenizer."""
    decoder, tokenizer = load_language_model()
    model = build_model(decoder.config, tokenizer.special_tokens[IMAGE_TOKEN], **settings)
    model.language_model.load_state_dict(decoder.state_dict())
    return model.to(device), tokenizer


def small_model(vocab_size: int, width: int, depth: int, heads: int, rotary_base: float) -> InternVL:
    """Return an untrained small model; the last of its `vocab_size` token ids stands for images."""
    language = DecoderConfig(
        vocab_size, width, depth, heads, heads, 4 * width, rotary_base=rotary_base, qkv_bias=True, tied=True
    )
    return build_model(language, vocab_size - 1)


def encode_scenes(scenes: Sequence[Scene], device: str) -> Float[Tensor, "images side side width"]:
    """Encode each scene once with the frozen image encoder; the result is on the CPU."""
    features = vision_features(load_vision_encoder(), render_tensors(scenes), device).cpu()
    return features.unflatten(1, (SIDE, SIDE))


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's weights."""
    return next(model.parameters()).device
