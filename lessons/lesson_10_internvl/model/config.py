"""Settings of InternVL3 (arXiv:2504.10479) and InternVL3.5 (arXiv:2508.18265)."""

from dataclasses import dataclass
from typing import Literal

from lessons.lesson_09_qwen_vl.model.config import VISION_ACTIVATIONS
from shared.transformer import DecoderConfig


@dataclass(frozen=True)
class VisionConfig:
    """Describe an InternViT; the defaults are those of InternViT-300M at 448 × 448 pixels.

    image_size   side of a tile in pixels
    patch_size   side of a patch in pixels; what is left of a tile after the last patch is not encoded
    channels     channels of an image
    width        dimension of a token
    depth        number of transformer blocks
    heads        attention heads per block
    mlp_dim      inner width of the MLP

    activation   of the MLP, by its published name
    norm         "layer", or "rms" as in the largest InternViT
    norm_eps     added to the variance in the norms
    qkv_bias     whether queries, keys and values have a bias
    qk_norm      whether queries and keys are RMS-normalized, over all heads of a token together
    positions    whether there are learned positions
    layer_scale  initial value of a learned factor on each residual branch (arXiv:2103.17239)
    last_norm    whether a LayerNorm follows the last block

    Raises ValueError when the values exclude each other.
    """

    image_size: int = 448
    patch_size: int = 14
    channels: int = 3
    width: int = 1024
    depth: int = 24
    heads: int = 16
    mlp_dim: int = 4096
    activation: str = "gelu"
    norm: Literal["layer", "rms"] = "layer"
    norm_eps: float = 1e-6
    qkv_bias: bool = True
    qk_norm: bool = False
    positions: bool = True
    layer_scale: float = 0.1
    last_norm: bool = False

    def __post_init__(self) -> None:
        if self.norm not in ("layer", "rms") or self.activation not in VISION_ACTIVATIONS:
            raise ValueError(
                f"norm is {self.norm!r} and activation is {self.activation!r}; expected layer or rms, and one of "
                f"{', '.join(VISION_ACTIVATIONS)}"
            )
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        if self.side < 1:
            raise ValueError(f"image_size {self.image_size} is smaller than patch_size {self.patch_size}")

    @property
    def side(self) -> int:
        """The number of patches along one side of a tile."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class InternVLConfig:
    """Describe an InternVL.

    vision                the vision encoder
    language              the language model: Llama's, Qwen2's with biases of queries, keys and values, or Qwen3's
    qk_norm               whether the language model normalizes the queries and keys of each head, as Qwen3 does
    image_token_id        the token id whose positions receive visual tokens
    unshuffle             side of the square of patches that become one visual token
    projector_activation  by its published name
    feature_layer         which of the encoder's depth + 1 hidden states are the features; −1 is the encoder's output
    router                whether a router chooses between all visual tokens of a tile and one in four of them
                          (InternVL3.5-Flash)

    Raises ValueError when the values exclude each other.
    """

    vision: VisionConfig
    language: DecoderConfig
    qk_norm: bool = False
    image_token_id: int = 151_667
    unshuffle: int = 2
    projector_activation: str = "gelu"
    feature_layer: int = -1
    router: bool = False

    def __post_init__(self) -> None:
        if self.language.positions != "rotary":
            raise ValueError(f"the language model has {self.language.positions} positions; V2PE needs rotary ones")
        if self.qk_norm and self.language.qkv_bias:
            raise ValueError("qk_norm is Qwen3's and qkv_bias is Qwen2's; choose one of them")
        if self.projector_activation not in VISION_ACTIVATIONS:
            raise ValueError(
                f"projector_activation is {self.projector_activation!r}; expected one of "
                f"{', '.join(VISION_ACTIVATIONS)}"
            )
        if not -self.vision.depth - 1 <= self.feature_layer <= self.vision.depth:
            raise ValueError(
                f"feature_layer is {self.feature_layer}; the vision encoder has the hidden states 0 to "
                f"{self.vision.depth}, or {-self.vision.depth - 1} to -1 from the end"
            )
        coarsest = self.unshuffle * (2 if self.router else 1)
        if self.unshuffle < 1 or self.vision.side % coarsest:
            raise ValueError(
                f"{self.vision.side} patches along one side do not divide into squares of {coarsest}; change "
                "image_size, patch_size or unshuffle"
            )

    @property
    def tile_tokens(self) -> int:
        """The number of visual tokens of a tile at full resolution."""
        return (self.vision.side // self.unshuffle) ** 2

    @property
    def coarse_tile_tokens(self) -> int:
        """The number of visual tokens of a tile that the router compresses."""
        return self.tile_tokens // 4
