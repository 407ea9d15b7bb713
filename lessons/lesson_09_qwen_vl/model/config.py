"""Settings of the Qwen-VL family: Qwen2-VL (arXiv:2409.12191), Qwen2.5-VL (2502.13923) and Qwen3-VL (2511.21631)."""

from dataclasses import dataclass
from typing import Literal

from torch.nn import functional as F

from shared.transformer import DecoderConfig
from shared.transformer.block import ACTIVATIONS

Generation = Literal["2", "2.5", "3"]
GENERATIONS: tuple[Generation, ...] = ("2", "2.5", "3")
VISION_ACTIVATIONS = {"silu": F.silu, **ACTIVATIONS}
"""Activations of the vision encoder's MLP by the names that published configs give them."""


@dataclass(frozen=True)
class VisionConfig:
    """Describe a vision encoder for images and videos of any resolution; the defaults are Qwen2-VL's.

    depth             number of transformer blocks
    width             dimension of a patch's vector
    heads             attention heads per block
    mlp_dim           inner width of the MLP
    output_width      dimension of a merged token: the width of the language model
    patch_size        side of a patch in pixels
    frames_per_patch  consecutive frames in one patch; a still image is repeated this often
    merge_size        side of the square of patches that become one token
    channels          channels of a frame

    norm              "layer", or "rms" in Qwen2.5-VL
    gated_mlp         whether the MLP is a SwiGLU, as in Qwen2.5-VL, or has two layers
    activation        of the MLP, by its published name
    patch_bias        whether the patch embedding has a bias (Qwen3-VL)
    rotary_base       of the 2-D rotary angles

    window_size            side of an attention window in pixels (Qwen2.5-VL); None: every block has full attention
    full_attention_layers  blocks without windows, counted from 0
    grid_size              side of the square grid of learned positions (Qwen3-VL); 0 for none
    deepstack_layers       blocks whose outputs go to the language model too (Qwen3-VL), in ascending order

    Raises ValueError when the values exclude each other.
    """

    depth: int
    width: int
    heads: int
    mlp_dim: int
    output_width: int
    patch_size: int = 14
    frames_per_patch: int = 2
    merge_size: int = 2
    channels: int = 3
    norm: Literal["layer", "rms"] = "layer"
    gated_mlp: bool = False
    activation: str = "quick_gelu"
    patch_bias: bool = False
    rotary_base: float = 10_000.0
    window_size: int | None = None
    full_attention_layers: tuple[int, ...] = ()
    grid_size: int = 0
    deepstack_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.norm not in ("layer", "rms") or self.activation not in VISION_ACTIVATIONS:
            raise ValueError(
                f"norm is {self.norm!r} and activation is {self.activation!r}; expected layer or rms, and one of "
                f"{', '.join(VISION_ACTIVATIONS)}"
            )
        if self.width % self.heads or self.width // self.heads % 4:
            raise ValueError(
                f"width {self.width} and {self.heads} heads give no head dimension that is a multiple of 4, which 2-D "
                "rotary positions need"
            )
        if self.window_size is not None and self.window_side < 1:
            raise ValueError(
                f"a window of {self.window_size} pixels is smaller than a token of {self.token_side} pixels; enlarge it"
            )
        layers = list(self.deepstack_layers)
        if layers != sorted(set(layers)) or not all(0 <= layer < self.depth for layer in layers):
            raise ValueError(
                f"DeepStack reads the blocks {layers}; expected ascending numbers from 0 to {self.depth - 1}"
            )

    @property
    def token_side(self) -> int:
        """Side in pixels of the square that one token covers; images are resized to multiples of it."""
        return self.patch_size * self.merge_size

    @property
    def window_side(self) -> int:
        """Side of an attention window in merged tokens; 0 without windows."""
        return (self.window_size or 0) // self.token_side

    @property
    def patch_values(self) -> int:
        """Number of values of one patch: all channels of all pixels of its frames."""
        return self.channels * self.frames_per_patch * self.patch_size**2


@dataclass(frozen=True)
class QwenVLConfig:
    """Describe one model of the family.

    generation         "2", "2.5" or "3"; it decides on time ids, the order of rotary pairs, and query–key norms
    language           the language model: Qwen2's with biases of queries, keys and values, Qwen3's with query–key norms
    sections           pairs of a head that rotate with the time, the row and the column; in sum half of the head
    image_token_id     the token id whose positions receive tokens of images
    video_token_id     the token id whose positions receive tokens of videos
    vision_start_token_id, vision_end_token_id   the token ids around an image, a video, or a frame in Qwen3-VL
    tokens_per_second  time ids per second of video in Qwen2.5-VL

    Raises ValueError when the values exclude each other.
    """

    generation: Generation
    vision: VisionConfig
    language: DecoderConfig
    sections: tuple[int, int, int]
    image_token_id: int = 151_655
    video_token_id: int = 151_656
    vision_start_token_id: int = 151_652
    vision_end_token_id: int = 151_653
    tokens_per_second: float = 4.0

    def __post_init__(self) -> None:
        if self.generation not in GENERATIONS:
            raise ValueError(f"generation is {self.generation!r}; expected one of {', '.join(GENERATIONS)}")
        if self.language.positions != "rotary":
            raise ValueError(f"the language model has {self.language.positions} positions; M-RoPE needs rotary ones")
        pairs = self.language.width_per_head // 2
        if len(self.sections) != 3 or min(self.sections) < 0 or sum(self.sections) != pairs:
            raise ValueError(
                f"the M-RoPE sections are {list(self.sections)}; expected three numbers that add up to {pairs}, half "
                f"of the head dimension {self.language.width_per_head}"
            )
        if self.vision.output_width != self.language.width:
            raise ValueError(
                f"merged tokens have width {self.vision.output_width} and the language model has width "
                f"{self.language.width}; expected the same"
            )
        if self.image_token_id == self.video_token_id:
            raise ValueError(f"images and videos have the same token id, {self.image_token_id}; expected two")

    @property
    def interleaved(self) -> bool:
        """Whether the three axes alternate along the pairs of a head, as in Qwen3-VL."""
        return self.generation == "3"
