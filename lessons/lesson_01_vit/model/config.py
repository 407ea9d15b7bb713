"""What a Vision Transformer is made of. The defaults are ViT-B/16 at 224 × 224 (arXiv:2010.11929, table 1)."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class VisionTransformerConfig:
    """The choices that make one Vision Transformer; every one of them stands for a published model.

    image_size    pixels of a side, or (height, width): the size that the learned positions are made for
    patch_size    pixels of a patch's side
    channels      values of a pixel
    width         values of a token
    depth         transformer blocks
    heads         attention heads in a block
    mlp_dim       width inside the feed-forward network
    classes       outputs of the head; 0 leaves the head out, and the model gives the pooled vector
    labels        what the classes are called, where that is known

    positions     "learned" (ViT), "sine-cosine" (fixed; MAE), "rotary" (2-D, in every attention; arXiv:2403.13298)
                  or "none" (a claim of this lesson)
    class_token   put a token in front that belongs to no patch
    distillation_token   put DeiT's second token behind it (distillation.py)
    registers     tokens behind those without a position, as scratch space (arXiv:2309.16588)
    pooling       the one vector of an image: its class token, the mean of its patches, or attention to them
    pooler        a further tanh layer on the class token, which ViT kept from pretraining

    mlp  "gelu", or "swiglu" as in DINOv2's largest model
    qkv_bias      whether queries, keys and values have a bias
    layer_scale   start value of a learned factor on each branch (arXiv:2103.17239); None leaves it out
    drop_path     probability of skipping the last block's branches in training; it grows linearly from 0 at the first
    norm_eps      added to the variance in every LayerNorm
    antialias     smooth before making the grid of learned positions smaller, as DINOv2 with registers does
    mask_token    keep a learned token that stands in for hidden patches (iBOT, in DINOv2)

    Raises ValueError when the choices exclude each other.
    """

    image_size: int | tuple[int, int] = 224
    patch_size: int = 16
    channels: int = 3
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_dim: int = 3072
    classes: int = 0
    labels: tuple[str, ...] = ()

    positions: Literal["learned", "sine-cosine", "rotary", "none"] = "learned"
    class_token: bool = True
    distillation_token: bool = False
    registers: int = 0
    pooling: Literal["class", "mean", "attention"] = "class"
    pooler: bool = False

    mlp: Literal["gelu", "swiglu"] = "gelu"
    qkv_bias: bool = True
    layer_scale: float | None = None
    drop_path: float = 0.0
    norm_eps: float = 1e-6
    antialias: bool = False
    mask_token: bool = False

    def __post_init__(self) -> None:
        choices = {
            "positions": ("learned", "sine-cosine", "rotary", "none"),
            "pooling": ("class", "mean", "attention"),
            "mlp": ("gelu", "swiglu"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(allowed)}")
        height, width = self.image_sides
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"image_size {height}×{width} does not divide into patches of {self.patch_size}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        if self.positions == "rotary" and self.width // self.heads % 4:
            raise ValueError(
                f"2-D rotary positions turn pairs of values along two axes: a head's width must be a multiple of 4, "
                f"got {self.width // self.heads}"
            )
        if self.pooling == "class" and not self.class_token:
            raise ValueError("pooling 'class' reads the class token, but class_token is False; pool 'mean' instead")
        if self.pooler and self.pooling != "class":
            raise ValueError(f"the tanh pooler reads the class token, but pooling is {self.pooling!r}")
        if self.labels and len(self.labels) != self.classes:
            raise ValueError(
                f"{len(self.labels)} labels were given for {self.classes} classes; name all of them or none"
            )
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError(f"drop_path is a probability below 1, got {self.drop_path}")

    @property
    def image_sides(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.image_sides
        return height // self.patch_size, width // self.patch_size

    @property
    def leading(self) -> int:
        """Tokens in front of the patches that have a position of their own."""
        return int(self.class_token) + int(self.distillation_token)


@dataclass(frozen=True)
class MaskedAutoencoderConfig:
    """An encoder and a light decoder; the decoder's defaults are those that the paper settled on (arXiv:2111.06377, table 1).

    encoder         a config without a head
    decoder_mlp_dim  width inside the decoder's feed-forward networks; four times its width when left out
    mask_ratio      the part of the patches that is hidden
    normalize       reconstruct each patch's contrast instead of its pixels
    """

    encoder: VisionTransformerConfig
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    mask_ratio: float = 0.75
    normalize: bool = True
    decoder_mlp_dim: int | None = None
