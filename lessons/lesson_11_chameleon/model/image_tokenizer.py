"""An image tokenizer: a convolutional encoder, a quantizer and a convolutional decoder (arXiv:1711.00937, 2012.09841).

    image [3, 32, 32] → encoder → [width, 8, 8] → quantizer → codes [8, 8] → decoder → image [3, 32, 32]

Each halving of the sides is one stage: two stages give 8 × 8 codes, three give 4 × 4. The codes, row by row, are what a
language model reads and writes.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_11_chameleon.model.fsq import LEVELS, FiniteScalarQuantizer
from lessons.lesson_11_chameleon.model.quantizer import Codes, Maps, VectorQuantizer
from lessons.lesson_11_chameleon.model.residual_block import ResidualBlock, group_norm
from shared.errors import CourseError
from shared.pretrained import Rename, Setting, WeightNames, load_weights, read_config, read_settings, save_pretrained
from shared.pretrained.config_mapping import build_config, write_settings
from shared.pretrained.setting_values import integer, number, one_of

MODEL_TYPE = "toy_world_image_tokenizer"
QUANTIZERS = ("ema", "gradient", "fsq")
GROUPS = 8
"""Groups of channels that a norm normalizes together."""

Images = Float[Tensor, "batch 3 size size"]


@dataclass(frozen=True)
class TokenizerConfig:
    """Describe an image tokenizer.

    codebook_size  number of codes; with "fsq" one of `fsq.LEVELS`, whose product is about this size
    image_size     side of an image in pixels
    stages         halvings of the sides: an image has (image_size / 2^stages)² codes
    width          channels of the first stage; later stages have twice as many
    blocks         residual blocks per stage
    code_width     dimension of a codebook entry; "fsq" has one channel per level instead
    quantizer      "ema" or "gradient": how the codebook learns; "fsq": no codebook
    commitment     weight of the commitment loss
    decay          of the codebook's moving averages: with 0.95 instead of the paper's 0.99 the codebook follows the
                   encoder of a short training
    restart        a code that is used this much less than the mean restarts; 0 never restarts

    Raises ValueError when the values exclude each other.
    """

    codebook_size: int = 512
    image_size: int = 32
    stages: int = 2
    width: int = 48
    blocks: int = 1
    code_width: int = 16
    quantizer: str = "ema"
    commitment: float = 0.25
    decay: float = 0.95
    restart: float = 0.03

    def __post_init__(self) -> None:
        if self.stages < 1 or self.image_size < 1 or self.image_size % 2**self.stages:
            raise ValueError(
                f"an image of {self.image_size} pixels per side does not halve {self.stages} times; change image_size "
                "or stages"
            )
        if self.width % GROUPS or self.width < 1:
            raise ValueError(f"width is {self.width}; expected a multiple of {GROUPS}, the groups of the norms")
        if self.quantizer not in QUANTIZERS:
            raise ValueError(f"quantizer is {self.quantizer!r}; expected one of {', '.join(QUANTIZERS)}")
        if self.quantizer == "fsq" and self.codebook_size not in LEVELS:
            raise ValueError(
                f"no levels are listed for {self.codebook_size} codes; choose one of {', '.join(map(str, LEVELS))}"
            )

    @property
    def side(self) -> int:
        """The number of codes along one side of an image."""
        return self.image_size // 2**self.stages

    @property
    def widths(self) -> list[int]:
        """The channels of every stage."""
        return [self.width if stage == 0 else 2 * self.width for stage in range(self.stages)]


class Reconstruction(NamedTuple):
    """Hold images that were encoded and decoded, their codes, and the quantizer's loss."""

    images: Images
    codes: Codes
    loss: Float[Tensor, ""]


# ── Encoder and decoder ───────────────────────────────────────────────────────────────────────────────────────────────


class Encoder(nn.Module):
    """Halve the sides once per stage: images [batch, 3, size, size] → maps [batch, code_width, side, side]."""

    def __init__(self, config: TokenizerConfig, code_width: int):
        super().__init__()
        self.stages = nn.Sequential()
        previous = 3
        for width in config.widths:
            self.stages.append(nn.Conv2d(previous, width, 4, stride=2, padding=1))
            self.stages.extend(ResidualBlock(width, width, GROUPS) for _ in range(config.blocks))
            previous = width
        self.norm = group_norm(previous, GROUPS)
        self.output = nn.Conv2d(previous, code_width, 1)

    def forward(self, images: Images) -> Maps:
        return self.output(F.silu(self.norm(self.stages(4 * images - 3))))  # about zero mean, as most pixels are light


class Decoder(nn.Module):
    """Double the sides once per stage: maps [batch, code_width, side, side] → images [batch, 3, size, size]."""

    def __init__(self, config: TokenizerConfig, code_width: int):
        super().__init__()
        widths = config.widths[::-1]
        self.input = nn.Conv2d(code_width, widths[0], 3, padding=1)
        self.stages = nn.Sequential()
        for width, following in zip(widths, [*widths[1:], None], strict=True):
            self.stages.extend(ResidualBlock(width, width, GROUPS) for _ in range(config.blocks))
            if following is not None:
                self.stages.extend([nn.Upsample(scale_factor=2), nn.Conv2d(width, following, 3, padding=1)])
        self.norm = group_norm(widths[-1], GROUPS)
        # The last doubling: four pixels per position, from channels to neighbors (arXiv:1609.05158).
        self.output = nn.Conv2d(widths[-1], 4 * 3, 3, padding=1)

    def forward(self, maps: Maps) -> Images:
        pixels = self.output(F.silu(self.norm(self.stages(self.input(maps)))))
        return (F.pixel_shuffle(pixels, 2) + 3) / 4


# ── The tokenizer ─────────────────────────────────────────────────────────────────────────────────────────────────────


class ImageTokenizer(nn.Module):
    """Encode images to codes, and decode codes to images; pixels lie between 0 and 1."""

    def __init__(self, config: TokenizerConfig = TokenizerConfig()):
        super().__init__()
        self.config = config
        self.quantizer: VectorQuantizer | FiniteScalarQuantizer
        if config.quantizer == "fsq":
            self.quantizer = FiniteScalarQuantizer(LEVELS[config.codebook_size])
        else:
            self.quantizer = VectorQuantizer(
                config.codebook_size,
                config.code_width,
                learning=config.quantizer,
                commitment=config.commitment,
                decay=config.decay,
                restart=config.restart,
            )
        self.encoder = Encoder(config, self.quantizer.width)
        self.decoder = Decoder(config, self.quantizer.width)

    @property
    def codebook_size(self) -> int:
        """The number of codes; with "fsq" the product of the levels."""
        return self.quantizer.codebook_size

    def forward(self, images: Shaped[Tensor, "*shape"]) -> Reconstruction:
        """Return images of any pixel values, for training. Raises ValueError for images that `encode` refuses."""
        check_images(images, self.config.image_size)
        quantized = self.quantizer(self.encoder(images))
        return Reconstruction(self.decoder(quantized.maps), quantized.codes, quantized.loss)

    def encode(self, images: Shaped[Tensor, "*shape"]) -> Codes:
        """Return the codes of images. Raises ValueError for another size, type or range of the pixels, and for NaN."""
        check_images(images, self.config.image_size)
        return self.quantizer.encode(self.encoder(images))

    def decode(self, codes: Codes) -> Images:
        """Return the images of codes, with pixels from 0 to 1.

        Raises ValueError for another number of codes per image, and for codes out of range.
        """
        side = self.config.side
        if codes.ndim != 3 or codes.shape[1:] != (side, side):
            raise ValueError(
                f"codes have the shape {list(codes.shape)}; expected [batch, {side}, {side}]: reshape a sequence of "
                f"{side * side} codes per image row by row"
            )
        return self.decoder(self.quantizer.decode(codes)).clamp(0, 1)

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, codebook_size: int | None = None) -> "ImageTokenizer":
        """Load a tokenizer that `save_pretrained` wrote, in float32 and evaluation mode.

        codebook_size  the number of codes that the caller's vocabulary has

        Raises CourseError for anything else, and when the tokenizer has another number of codes.
        """
        config = build_config(TokenizerConfig, **read_settings(_SETTINGS, read_config(folder, MODEL_TYPE)))
        model = cls(config)
        if codebook_size not in (None, model.codebook_size):
            raise CourseError(
                f"the image tokenizer in {folder} has {model.codebook_size} codes, and {codebook_size} are expected; "
                f"load another tokenizer, or build the vocabulary with {model.codebook_size} image tokens"
            )
        load_weights(model, folder, _NAMES)
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json` and `model.safetensors`, in the dtype of the weights."""
        config = {"model_type": MODEL_TYPE, **write_settings(_SETTINGS, asdict(self.config))}
        save_pretrained(folder, self, _NAMES, config)


_ACCEPT = {int: integer(), float: number(), str: one_of(QUANTIZERS)}
_SETTINGS = [Setting(name, name, accept=_ACCEPT[type(value)]) for name, value in asdict(TokenizerConfig()).items()]
# The file has the names of the modules, which have two to five parts.
_NAMES = WeightNames(
    [Rename(name, name) for name in ("{a}.{b}", "{a}.{b}.{c}", "{a}.{b}.{c}.{d}", "{a}.{b}.{c}.{d}.{e}")]
)


def check_images(images: Shaped[Tensor, "*shape"], size: int) -> None:
    """Raise ValueError for images that are not [batch, 3, size, size] of finite numbers from 0 to 1."""
    shape = list(images.shape)
    if images.ndim != 4 or shape[1:] != [3, size, size]:
        raise ValueError(f"images have the shape {shape}; expected [batch, 3, {size}, {size}]: resize or crop them")
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}; expected floating point from 0 to 1: images.float() / 255")
    if images.numel() and not (images.min() >= 0 and images.max() <= 1):  # also refuses NaN
        raise ValueError(
            f"pixels lie between {float(images.min()):g} and {float(images.max()):g}; expected 0 to 1, without NaN"
        )
