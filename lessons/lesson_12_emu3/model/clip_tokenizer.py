"""A small 3-D tokenizer for clips of the toy world, strictly causal in time (after arXiv:2310.05737, section 3.1).

    clip [1 + 4n, 3, 32, 32] → frames by themselves → [1 + 4n, features, 8, 8]
                             → halvings in time     → [1 + n, features, 8, 8] → codes [1 + n, 8, 8] → the same backward

The encoder and the decoder of lesson 11's image tokenizer act on frames, and layers in time stand between them. Emu3
encodes four frames at a time, so that an image must be repeated. Here the first frame has codes of its own and every
further code stands for four frames. An image is a clip of one frame, and the codes of a clip's first frame do not
depend on the rest.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_11_chameleon.model.image_tokenizer import GROUPS, Decoder, Encoder, TokenizerConfig, check_images
from lessons.lesson_11_chameleon.model.quantizer import VectorQuantizer
from lessons.lesson_11_chameleon.model.residual_block import group_norm
from shared.pretrained import Rename, Setting, WeightNames, load_weights, read_config, read_settings, save_pretrained
from shared.pretrained.config_mapping import build_config, write_settings
from shared.pretrained.setting_values import integer, number

MODEL_TYPE = "toy_world_clip_tokenizer"

Clips = Float[Tensor, "batch frames 3 size size"]
ClipCodes = Int[Tensor, "batch code_frames rows columns"]
Features = Float[Tensor, "batch features frames rows columns"]


@dataclass(frozen=True)
class ClipTokenizerConfig:
    """Describe a clip tokenizer.

    codebook_size    number of codes
    image_size       side of a frame in pixels
    stages           halvings of the sides: a frame has (image_size / 2^stages)² places
    temporal_stages  halvings of the number of frames; 0 for a tokenizer of single frames
    width            channels of the first stage; later stages have twice as many
    blocks           residual blocks per stage
    features         channels between the frames' layers and those in time
    code_width       dimension of a codebook entry
    commitment       weight of the commitment loss
    decay, restart   of the codebook's moving averages and of dead codes, as in lesson 11

    Raises ValueError when the values exclude each other.
    """

    codebook_size: int = 512
    image_size: int = 32
    stages: int = 2
    temporal_stages: int = 2
    width: int = 48
    blocks: int = 1
    features: int = 64
    code_width: int = 16
    commitment: float = 0.25
    decay: float = 0.95
    restart: float = 0.03

    def __post_init__(self) -> None:
        if self.features % GROUPS or self.features < 1 or self.temporal_stages < 0:
            raise ValueError(
                f"features is {self.features} and temporal_stages is {self.temporal_stages}; expected a multiple of "
                f"{GROUPS}, the groups of the norms, and at least 0 stages"
            )
        _ = self.of_frames  # raises for the values that the image tokenizer shares

    @property
    def of_frames(self) -> TokenizerConfig:
        """The config of the image tokenizer whose layers act on frames."""
        return TokenizerConfig(
            self.codebook_size, self.image_size, stages=self.stages, width=self.width, blocks=self.blocks
        )

    @property
    def temporal_factor(self) -> int:
        """The number of frames per code, after the first frame."""
        return 2**self.temporal_stages

    def code_frames(self, frames: int) -> int:
        """Return the number of grids of codes for a clip. Raises ValueError unless it has 1 + n · factor frames."""
        if frames < 1 or (frames - 1) % self.temporal_factor:
            raise ValueError(
                f"a clip has {frames} frames; expected 1, or 1 and a multiple of {self.temporal_factor} more"
            )
        return 1 + (frames - 1) // self.temporal_factor


# ── Layers in time ────────────────────────────────────────────────────────────────────────────────────────────────────


def repeat_after_first(x: Features) -> Float[Tensor, "batch features 2*frames-1 rows columns"]:
    """Return every frame twice but the first: frames 0, 1, 2 become 0, 1, 1, 2, 2; from 1 + n frames to 1 + 2n."""
    # exercise 12.9: twice as many frames, and one first frame
    return x.repeat_interleave(2, dim=2)[:, :, 1:]
    # end exercise


class PastConv(nn.Module):
    """Convolve each frame with the two before it; before the first frame, that one is repeated.

    stride  2 for half as many frames: 1 + 2n → 1 + n
    """

    def __init__(self, channels: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, 3, stride=(stride, 1, 1), padding=(0, 1, 1))

    def forward(self, x: Features) -> Float[Tensor, "batch features new_frames rows columns"]:
        return self.conv(F.pad(x, (0, 0, 0, 0, 2, 0), mode="replicate"))


class FrameNorm(nn.Module):
    """GroupNorm of each frame by itself: a norm over all frames would let the past depend on the future."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = group_norm(channels, GROUPS)

    def forward(self, x: Features) -> Features:
        return rearrange(self.norm(rearrange(x, "b c t h w -> (b t) c h w")), "(b t) c h w -> b c t h w", b=len(x))


class TimeBlock(nn.Module):
    """Compute x + conv(silu(norm(conv(silu(norm(x)))))) with convolutions over the past."""

    def __init__(self, channels: int):
        super().__init__()
        self.first_norm, self.second_norm = FrameNorm(channels), FrameNorm(channels)
        self.first, self.second = PastConv(channels), PastConv(channels)

    def forward(self, x: Features) -> Features:
        update = self.first(F.silu(self.first_norm(x)))
        return x + self.second(F.silu(self.second_norm(update)))


class Halving(nn.Module):
    """A residual block, then half as many frames: 1 + 2n → 1 + n."""

    def __init__(self, channels: int):
        super().__init__()
        self.block, self.conv = TimeBlock(channels), PastConv(channels, stride=2)

    def forward(self, x: Features) -> Float[Tensor, "batch features new_frames rows columns"]:
        return self.conv(self.block(x))


class Doubling(nn.Module):
    """Twice as many frames, then a residual block: 1 + n → 1 + 2n."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv, self.block = PastConv(channels), TimeBlock(channels)

    def forward(self, x: Features) -> Float[Tensor, "batch features new_frames rows columns"]:
        return self.block(self.conv(repeat_after_first(x)))


# ── The tokenizer ─────────────────────────────────────────────────────────────────────────────────────────────────────


class ClipReconstruction(NamedTuple):
    """Hold clips that were encoded and decoded, their codes, and the quantizer's loss."""

    clips: Clips
    codes: ClipCodes
    loss: Float[Tensor, ""]


class ClipTokenizer(nn.Module):
    """Encode clips and images to codes of one codebook, and decode codes; pixels lie between 0 and 1."""

    def __init__(self, config: ClipTokenizerConfig = ClipTokenizerConfig()):
        super().__init__()
        self.config = config
        features, stages = config.features, range(config.temporal_stages)
        self.encoder, self.decoder = Encoder(config.of_frames, features), Decoder(config.of_frames, features)
        self.halvings = nn.Sequential(*(Halving(features) for _ in stages))
        self.doublings = nn.Sequential(*(Doubling(features) for _ in stages))
        self.before_codebook = nn.Conv2d(features, config.code_width, 1)
        self.after_codebook = nn.Conv2d(config.code_width, features, 1)
        self.quantizer = VectorQuantizer(
            config.codebook_size,
            config.code_width,
            commitment=config.commitment,
            decay=config.decay,
            restart=config.restart,
        )

    def _maps(self, clips: Clips) -> Float[Tensor, "grids code_width rows columns"]:
        """Return what is quantized, one map per grid of codes."""
        code_frames = self.config.code_frames(clips.shape[1])
        check_images(clips.flatten(0, 1), self.config.image_size)
        features = rearrange(self.encoder(clips.flatten(0, 1)), "(b t) c h w -> b c t h w", b=len(clips))
        features = self.halvings(features)
        assert features.shape[2] == code_frames
        return self.before_codebook(rearrange(features, "b c t h w -> (b t) c h w"))

    def _pixels(self, maps: Float[Tensor, "grids code_width rows columns"], batch: int) -> Clips:
        """Return the clips of quantized maps."""
        features = self.after_codebook(maps)
        features = self.doublings(rearrange(features, "(b t) c h w -> b c t h w", b=batch))
        return rearrange(
            self.decoder(rearrange(features, "b c t h w -> (b t) c h w")), "(b t) c h w -> b t c h w", b=batch
        )

    def forward(self, clips: Clips) -> ClipReconstruction:
        """Return clips of any pixel values, for training. Raises ValueError for clips that `encode` refuses."""
        quantized = self.quantizer(self._maps(clips))
        codes = rearrange(quantized.codes, "(b t) r c -> b t r c", b=len(clips))
        return ClipReconstruction(self._pixels(quantized.maps, len(clips)), codes, quantized.loss)

    def encode(self, clips: Clips) -> ClipCodes:
        """Return the codes of clips of 1 + n · temporal_factor frames; a clip of one frame is an image.

        Raises ValueError for another number of frames, and for another size, type or range of the pixels.
        """
        return rearrange(self.quantizer.encode(self._maps(clips)), "(b t) r c -> b t r c", b=len(clips))

    def decode(self, codes: ClipCodes) -> Clips:
        """Return the clips of codes, with pixels from 0 to 1.

        Raises ValueError for another number of codes per grid, and for codes out of range.
        """
        side = self.config.of_frames.side
        if codes.shape[2:] != (side, side):
            raise ValueError(f"codes have the shape {list(codes.shape)}; expected [batch, grids, {side}, {side}]")
        return self._pixels(self.quantizer.decode(codes.flatten(0, 1)), len(codes)).clamp(0, 1)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "ClipTokenizer":
        """Load a tokenizer that `save_pretrained` wrote, in evaluation mode. Raises CourseError for anything else."""
        config = build_config(ClipTokenizerConfig, **read_settings(_SETTINGS, read_config(folder, MODEL_TYPE)))
        model = cls(config)
        load_weights(model, folder, _NAMES)
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json` and `model.safetensors`, in the dtype of the weights."""
        config = {"model_type": MODEL_TYPE, **write_settings(_SETTINGS, asdict(self.config))}
        save_pretrained(folder, self, _NAMES, config)


_SETTINGS = [
    Setting(name, name, accept=integer(0) if isinstance(value, int) else number())
    for name, value in asdict(ClipTokenizerConfig()).items()
]
# The file has the names of the modules, which have two to six parts.
_NAMES = WeightNames(
    [Rename(name, name) for name in (".".join("{" + x + "}" for x in "abcdef"[:n]) for n in range(2, 7))]
)
