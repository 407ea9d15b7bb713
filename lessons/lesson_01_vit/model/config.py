"""Settings of a Vision Transformer. The defaults are ViT-B/16 at 224 × 224 (arXiv:2010.11929, table 1)."""

from dataclasses import dataclass
from typing import Literal

from shared.transformer.block import ACTIVATIONS

CHOICES = {
    "positions": ("learned", "sine-cosine", "rotary", "none"),
    "pooling": ("class", "mean", "attention"),
    "activation": tuple(ACTIVATIONS),
}


@dataclass(frozen=True)
class VisionTransformerConfig:
    """Describe one Vision Transformer; each published variant is a set of values.

    image_size    side in pixels, or (height, width), for which the learned positions are made; what is left of the
                  height and the width after the last whole patch is not encoded
    patch_size    side of a patch in pixels
    channels      channels of an image
    width         dimension of a token
    depth         number of transformer blocks
    heads         attention heads per block
    mlp_dim       inner width of the MLP
    classes       outputs of the classification head; 0: no head, the model returns the pooled vector
    labels        names of the classes, where known

    positions     "learned" (ViT), "sine-cosine" (fixed; MAE), "rotary" (2-D, in every attention; arXiv:2403.13298)
                  or "none" (for an ablation)
    class_token   whether a class token precedes the patches
    distillation_token   whether DeiT's distillation token follows the class token (arXiv:2012.12877)
    registers     extra tokens without a position between the class token and the patches (arXiv:2309.16588)
    mask_token    whether a learned token replaces masked patches (iBOT, in DINOv2)
    pooling       how tokens become one vector: "class" token, "mean" of the patches, or "attention" over the patches
    pooler        whether a linear layer and tanh follow the class token, as in pretrained ViTs

    activation    of the MLP: "gelu", "quick_gelu" (CLIP) or "gelu_pytorch_tanh" (SigLIP)
    swiglu        whether a SwiGLU replaces the MLP of each block (DINOv2's largest model); `activation` is then unused
    patch_bias    whether the patch embedding has a bias; CLIP's has none
    qkv_bias      whether queries, keys and values have a bias
    pre_norm      whether a LayerNorm precedes the first block (CLIP)
    norm_eps      added to the variance in every LayerNorm
    layer_scale   initial value of a learned factor on each residual branch (arXiv:2103.17239); None: no factor
    dropout       probability of dropping a value of the embedded patches, of attention's output and in the MLP
                  (arXiv:2010.11929, appendix B.1)
    drop_path     probability of skipping the branches of the last block in training; grows linearly from 0 at the first
    antialias     whether learned positions are low-pass filtered when resized to a smaller grid (DINOv2 with registers)

    Raises ValueError when the values exclude each other.
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
    mask_token: bool = False
    pooling: Literal["class", "mean", "attention"] = "class"
    pooler: bool = False

    activation: str = "gelu"
    swiglu: bool = False
    patch_bias: bool = True
    qkv_bias: bool = True
    pre_norm: bool = False
    norm_eps: float = 1e-6
    layer_scale: float | None = None
    dropout: float = 0.0
    drop_path: float = 0.0
    antialias: bool = False

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(allowed)}")
        height, width = self.image_sides
        if height < self.patch_size or width < self.patch_size:
            raise ValueError(f"image_size {height}×{width} is smaller than patch_size {self.patch_size}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        if self.positions == "rotary" and self.width // self.heads % 4:
            raise ValueError(
                "2-D rotary positions rotate pairs of values along two axes: the dimension of a head must be "
                f"a multiple of 4, got {self.width // self.heads}"
            )
        self._check_tokens_and_heads()
        for name in ("dropout", "drop_path"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a probability in [0, 1), below 1")
        if self.dropout and self.swiglu:
            raise ValueError("dropout is defined for the plain MLP only; set swiglu=False or dropout=0")

    def _check_tokens_and_heads(self) -> None:
        if self.pooling == "class" and not self.class_token:
            raise ValueError("pooling 'class' reads the class token, but class_token is False; pool 'mean' instead")
        if self.pooler and self.pooling != "class":
            raise ValueError(f"the tanh pooler reads the class token, but pooling is {self.pooling!r}")
        if self.distillation_token and self.classes and (self.pooling != "class" or self.pooler):
            raise ValueError(
                "a distilled classifier has a head on the class token and one on the distillation token; "
                f"expected pooling='class' and pooler=False, got {self.pooling!r} and {self.pooler}"
            )
        if self.labels and len(self.labels) != self.classes:
            raise ValueError(
                f"{len(self.labels)} labels were given for {self.classes} classes; name all of them or none"
            )

    @property
    def image_sides(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of whole patches."""
        height, width = self.image_sides
        return height // self.patch_size, width // self.patch_size

    @property
    def prefix_positions(self) -> int:
        """Number of tokens before the patches that have a position: the class and the distillation token."""
        return int(self.class_token) + int(self.distillation_token)

    @property
    def prefix_tokens(self) -> int:
        """Number of all tokens before the patches: class token, distillation token and registers."""
        return self.prefix_positions + self.registers


@dataclass(frozen=True)
class MaskedAutoencoderConfig:
    """Describe an encoder and its light decoder; the decoder's defaults are the paper's (arXiv:2111.06377, table 1).

    encoder          config without a classification head
    decoder_mlp_dim  inner width of the decoder's MLPs; None: four times the decoder's width
    mask_ratio       fraction of the patches that is masked
    normalize        whether the target is each patch's pixels, normalized over the patch, instead of the pixels

    Raises ValueError for images that do not divide into patches, since each pixel is predicted.
    """

    encoder: VisionTransformerConfig
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    mask_ratio: float = 0.75
    normalize: bool = True
    decoder_mlp_dim: int | None = None

    def __post_init__(self) -> None:
        height, width = self.encoder.image_sides
        if height % self.encoder.patch_size or width % self.encoder.patch_size:
            raise ValueError(f"image_size {height}×{width} is no multiple of patch_size {self.encoder.patch_size}")
        if self.decoder_width % self.decoder_heads:
            raise ValueError(f"decoder_width {self.decoder_width} does not divide into {self.decoder_heads} heads")
