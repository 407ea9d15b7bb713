"""The captioner's configuration, and its two presets: a large one, and a small one that a laptop trains."""

from dataclasses import dataclass

from lessons.lesson_01_vit.model import VisionTransformerConfig
from shared.transformer import DecoderConfig


@dataclass(frozen=True)
class CaptionerConfig:
    """Describe a vision encoder and a language model; one linear layer between them maps width to width.

    mean, std  normalize pixels scaled to [0, 1] before the vision encoder
    """

    vision: VisionTransformerConfig
    language: DecoderConfig
    mean: float = 0.5
    std: float = 0.5


FULL = CaptionerConfig(
    VisionTransformerConfig(
        image_size=96,
        patch_size=16,
        channels=3,
        width=512,
        depth=16,
        heads=8,
        mlp_dim=2048,
        dropout=0.4,
        class_token=False,
        pooling="mean",
    ),
    # The constants are Llama 2's, like the vocabulary and the MLP; the output layer is not tied to the embedding.
    DecoderConfig(
        vocab_size=32_000,
        width=128,
        depth=8,
        heads=8,
        kv_heads=8,
        mlp_dim=11_008,
        rotary_base=10_000.0,
        norm_eps=1e-5,
        tied=False,
    ),
)
"""The preset of the specification, which leaves the numbers of heads open: we chose 8 and 8."""

SMALL = CaptionerConfig(
    VisionTransformerConfig(
        image_size=32, patch_size=4, channels=3, width=96, depth=3, heads=6, mlp_dim=192, norm_eps=1e-5
    ),
    DecoderConfig(vocab_size=1000, width=64, depth=2, heads=4, kv_heads=4, mlp_dim=160, rotary_base=100.0, tied=True),
    # As `normalize_pixels` of the toy world: byte / 64 − 3.25.
    mean=3.25 * 64 / 255,
    std=64 / 255,
)
"""The same parts, a few hundred times smaller. The vision encoder has lesson 2's width, and 3 blocks.

`train --toy-world` takes lesson 2's shipped vision encoder instead, without its last block (`toy_world.clip_config`).
"""

PRESETS = {"small": SMALL, "full": FULL}
