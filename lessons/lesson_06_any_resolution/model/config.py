"""Settings of native-resolution encoders: NaViT (arXiv:2307.06304) and SigLIP 2 NaFlex (arXiv:2502.14786)."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lessons.lesson_02_clip.model import SigLIPConfig, TextEncoderConfig
from shared.transformer.block import ACTIVATIONS

CHOICES = {
    "positions": ("learned", "factorized-absolute", "factorized-fractional", "rotary", "none"),
    "pooling": ("attention", "mean", "none"),
    "activation": tuple(ACTIVATIONS),
}


@dataclass(frozen=True)
class NaViTConfig:
    """Describe one native-resolution encoder; the defaults are NaViT at the size of ViT-B/16.

    patch_size  side of a patch in pixels
    channels    channels of an image
    width       dimension of a token
    depth       number of transformer blocks
    heads       attention heads per block
    mlp_dim     inner width of the MLP
    classes     outputs of a classification head on the pooled vector; 0: no head

    positions   "learned": a square grid of vectors, resized to each image's grid (SigLIP 2);
                "factorized-absolute": a vector per row plus one per column, indexed by the patch (NaViT, section 2.1);
                "factorized-fractional": the same, indexed by the patch's fraction of the image's side;
                "rotary": 2-D rotary angles in every attention, as in lesson 1; "none": for an ablation
    grid_size   learned vectors per axis: the side of the square grid, or the entries of each factorized table
    pooling     how an image's tokens become one vector: "attention", "mean", or "none" for an encoder of patches only

    activation  of the MLPs, by its published name
    qkv_bias    whether queries, keys and values have a bias; NaViT's have none
    qk_norm     whether each head's queries and keys are normalized, as in NaViT (arXiv:2302.05442, section 2)
    norm_eps    added to the variance in every LayerNorm

    Raises ValueError when the values exclude each other.
    """

    patch_size: int = 16
    channels: int = 3
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_dim: int = 3072
    classes: int = 0

    positions: Literal["learned", "factorized-absolute", "factorized-fractional", "rotary", "none"] = (
        "factorized-fractional"
    )
    grid_size: int = 64
    pooling: Literal["attention", "mean", "none"] = "attention"

    activation: str = "gelu_pytorch_tanh"
    qkv_bias: bool = False
    qk_norm: bool = True
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(allowed)}")
        for name in ("patch_size", "channels", "grid_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        if self.positions == "rotary" and self.width // self.heads % 4:
            raise ValueError(
                "2-D rotary positions rotate pairs of values along two axes: the dimension of a head must be "
                f"a multiple of 4, got {self.width // self.heads}"
            )
        if self.classes and self.pooling == "none":
            raise ValueError(
                f"a head of {self.classes} classes needs a pooled vector; set pooling to attention or mean"
            )

    @property
    def patch_pixels(self) -> int:
        """Number of values of one patch: all channels of all its pixels."""
        return self.channels * self.patch_size**2


SIGLIP2_VISION = NaViTConfig(positions="learned", grid_size=16, qkv_bias=True, qk_norm=False)


def siglip2_vision_config(**changes: Any) -> NaViTConfig:
    """Return the config of SigLIP 2's NaFlex image encoder (section 2.4.2): ViT-B/16, with `changes` to its fields."""
    return replace(SIGLIP2_VISION, **changes)


@dataclass(frozen=True)
class SigLIP2Config:
    """Describe SigLIP 2's two encoders; captions are projected to the width of the image encoder.

    The text encoder is SigLIP's (lesson 2). The published one has a vocabulary of 256,000 tokens.
    Raises ValueError when images are not pooled by attention.
    """

    image: NaViTConfig = SIGLIP2_VISION
    text: TextEncoderConfig = field(default_factory=lambda: SigLIPConfig().text)

    def __post_init__(self) -> None:
        if self.image.pooling != "attention" or self.image.classes:
            raise ValueError(
                f"SigLIP 2 pools patches by attention and has no classes; the image encoder's pooling is "
                f"{self.image.pooling!r}, with {self.image.classes} classes"
            )
