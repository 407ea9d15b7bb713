"""What a captioner is made of, and the two that the lesson speaks of: the preset in full, and a small one that a laptop trains."""

from dataclasses import dataclass

from lessons.lesson_01_vit.model import VisionTransformerConfig
from shared.transformer import DecoderConfig


@dataclass(frozen=True)
class CaptionerConfig:
    """An eye and a language model; one linear layer between them makes vectors of the one's width into the other's.

    mean, deviation   what a pixel's value, from 0 to 1, is standardized by before the eye sees it
    """

    eye: VisionTransformerConfig
    language: DecoderConfig
    mean: float = 0.5
    deviation: float = 0.5


FULL = CaptionerConfig(
    VisionTransformerConfig(
        image_size=96, patch_size=16, channels=3, width=512, depth=16, heads=8, mlp_dim=2048, dropout=0.4,
        class_token=False, pooling="mean",
    ),
    # Llama 2's constants go with its vocabulary and its 11,008; the output has a matrix of its own, as there.
    DecoderConfig(
        vocab_size=32_000, width=128, depth=8, heads=8, kv_heads=8, mlp_dim=11_008, rotary_base=10_000.0, norm_eps=1e-5,
        tied=False,
    ),
)  # fmt: skip
"""The preset. It names no numbers of heads: 8 and 8 are our choice, heads of 64 and of 16 values."""

SMALL = CaptionerConfig(
    VisionTransformerConfig(image_size=32, patch_size=4, channels=3, width=96, depth=3, heads=6, mlp_dim=192, norm_eps=1e-5),
    DecoderConfig(vocab_size=1000, width=64, depth=2, heads=4, kv_heads=4, mlp_dim=160, rotary_base=100.0, tied=True),
    # Lesson 2's numbers, with its eye's sizes: the toy world is drawn on light paper.
    mean=3.25 * 64 / 255, deviation=64 / 255,
)  # fmt: skip
"""What the lesson trains on the toy world: the same parts, a few hundred times smaller. Its eye has the
shape of lesson 2's without the last block, so that it can begin where that ended."""

PRESETS = {"small": SMALL, "full": FULL}
