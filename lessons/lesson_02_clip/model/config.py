"""Settings of CLIP and SigLIP. The defaults are CLIP ViT-B/32 (arXiv:2103.00020, table 20)."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lessons.lesson_01_vit.model import VisionTransformerConfig
from shared.transformer.block import ACTIVATIONS

CLIP_VISION = VisionTransformerConfig(
    patch_size=32, norm_eps=1e-5, activation="quick_gelu", patch_bias=False, pre_norm=True
)
SIGLIP_VISION = VisionTransformerConfig(class_token=False, pooling="attention", activation="gelu_pytorch_tanh")


def clip_vision_config(**changes: Any) -> VisionTransformerConfig:
    """Return the config of CLIP's image encoder: ViT-B/32, with `changes` to its fields."""
    return replace(CLIP_VISION, **changes)


def siglip_vision_config(**changes: Any) -> VisionTransformerConfig:
    """Return the config of SigLIP's image encoder: ViT-B/16, with `changes` to its fields."""
    return replace(SIGLIP_VISION, **changes)


@dataclass(frozen=True)
class TextEncoderConfig:
    """Describe a transformer that encodes a caption as one vector.

    vocab_size      number of token ids
    context_length  maximum number of tokens, start and end included
    causal          whether a token attends to earlier tokens only, as in CLIP (arXiv:2103.00020, section 2.4)
    pooling         which output represents the caption: that of the first "end" token, of the "last" token, padding or
                    not (SigLIP), or the "mean" of all (the lesson's reference in pure Python)
    end_token       id of the end token; None: the largest id in each row, which is the end token in CLIP's vocabulary

    Raises ValueError when the values exclude each other.
    """

    vocab_size: int = 49_408
    context_length: int = 77
    width: int = 512
    depth: int = 12
    heads: int = 8
    mlp_dim: int = 2048
    activation: str = "quick_gelu"
    norm_eps: float = 1e-5
    causal: bool = True
    pooling: Literal["end", "last", "mean"] = "end"
    end_token: int | None = None

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation is {self.activation!r}, expected one of {', '.join(ACTIVATIONS)}")
        if self.pooling not in ("end", "last", "mean"):
            raise ValueError(f"pooling is {self.pooling!r}, expected end, last or mean")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        if self.end_token is not None and not 0 <= self.end_token < self.vocab_size:
            raise ValueError(f"end_token is {self.end_token}, expected a token id from 0 to {self.vocab_size - 1}")


@dataclass(frozen=True)
class CLIPConfig:
    """Describe two encoders, the space into which both are projected, and the loss.

    embedding  dimension of the common space
    loss       "info-nce" as in the paper, or "sigmoid", SigLIP's loss with its bias, for a comparison of the losses

    Raises ValueError for another loss.
    """

    image: VisionTransformerConfig = CLIP_VISION
    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    embedding: int = 512
    loss: Literal["info-nce", "sigmoid"] = "info-nce"

    def __post_init__(self) -> None:
        if self.loss not in ("info-nce", "sigmoid"):
            raise ValueError(f"loss is {self.loss!r}, expected info-nce or sigmoid")


@dataclass(frozen=True)
class SigLIPConfig:
    """Describe SigLIP's encoders; captions are projected to the width of the image encoder, which has no projection.

    The defaults are SigLIP ViT-B/16 (arXiv:2303.15343). Raises ValueError when images are not pooled by attention.
    """

    image: VisionTransformerConfig = SIGLIP_VISION
    text: TextEncoderConfig = field(
        default_factory=lambda: TextEncoderConfig(
            vocab_size=32_000,
            context_length=64,
            width=768,
            depth=12,
            heads=12,
            mlp_dim=3072,
            activation="gelu_pytorch_tanh",
            norm_eps=1e-6,
            causal=False,
            pooling="last",
        )
    )

    def __post_init__(self) -> None:
        if self.image.pooling != "attention":
            raise ValueError(
                f"SigLIP pools patches by attention, but the image encoder's pooling is {self.image.pooling!r}"
            )
