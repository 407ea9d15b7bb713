"""What CLIP and SigLIP are made of. The defaults are CLIP ViT-B/32 (arXiv:2103.00020, table 20)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lessons.lesson_01_vit.model import VisionTransformerConfig


def quick_gelu(x: Tensor) -> Tensor:
    """x · sigmoid(1.702 x): a cheap neighbor of GELU (arXiv:1606.08415, section 2) that CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
}


@dataclass(frozen=True)
class VisionTowerConfig(VisionTransformerConfig):
    """Lesson 1's Vision Transformer, with what CLIP and SigLIP changed.

    activation  in every feed-forward network: a name in `ACTIVATIONS`
    patch_bias  whether the projection of patches has a bias
    pre_norm    one more norm before the first block
    """

    patch_size: int = 32
    norm_eps: float = 1e-5
    activation: str = "quick_gelu"
    patch_bias: bool = False
    pre_norm: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_activation(self.activation)


@dataclass(frozen=True)
class TextTowerConfig:
    """A transformer that reads a caption and gives one vector.

    context    the most tokens it can read, start and end included
    causal     whether a token sees only those before it, as in CLIP ("to preserve the ability to add language modeling")
    pooling    which token is the caption's vector: the first "end" token, or the "last" one, padding or not (SigLIP); or
               the "mean" of all (the lesson's reference in pure Python)
    end_token  its number; None stands for the largest number in the row, which it is in CLIP's vocabulary

    Raises ValueError when the choices exclude each other.
    """

    vocab_size: int = 49_408
    context: int = 77
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
        check_activation(self.activation)
        if self.pooling not in ("end", "last", "mean"):
            raise ValueError(f"pooling is {self.pooling!r}, expected end, last or mean")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        if self.end_token is not None and not 0 <= self.end_token < self.vocab_size:
            raise ValueError(
                f"end_token is {self.end_token}, but the vocabulary has the numbers 0 to {self.vocab_size - 1}"
            )


@dataclass(frozen=True)
class CLIPConfig:
    """Two towers and the space in which they meet: `embedding` numbers a picture, and as many a caption."""

    image: VisionTowerConfig = field(default_factory=VisionTowerConfig)
    text: TextTowerConfig = field(default_factory=TextTowerConfig)
    embedding: int = 512


@dataclass(frozen=True)
class SigLIPConfig:
    """Two towers whose own outputs meet: the picture's is as wide as its tower, and the caption's is projected to that.

    The defaults are SigLIP ViT-B/16 (arXiv:2303.15343). Raises ValueError when the vision tower does not pool by attention.
    """

    image: VisionTowerConfig = field(
        default_factory=lambda: VisionTowerConfig(
            patch_size=16, class_token=False, pooling="attention", norm_eps=1e-6, activation="gelu_pytorch_tanh",
            patch_bias=True, pre_norm=False,
        )
    )  # fmt: skip
    text: TextTowerConfig = field(
        default_factory=lambda: TextTowerConfig(
            vocab_size=32_000, context=64, width=768, depth=12, heads=12, mlp_dim=3072, activation="gelu_pytorch_tanh",
            norm_eps=1e-6, causal=False, pooling="last",
        )
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.image.pooling != "attention":
            raise ValueError(
                f"SigLIP pools patches by attention, but the image tower's pooling is {self.image.pooling!r}"
            )


def check_activation(name: str) -> None:
    """Raise ValueError when there is no such activation."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation is {name!r}, expected one of {', '.join(ACTIVATIONS)}")
