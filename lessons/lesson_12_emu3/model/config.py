"""Settings of Emu3 (arXiv:2409.18869) and of its vision tokenizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from lessons.lesson_11_chameleon.model.config import GROUPS, check_language
from lessons.lesson_12_emu3.model.vocabulary import VisionVocabulary
from shared.transformer import DecoderConfig


@dataclass(frozen=True)
class VisionTokenizerConfig:
    """Describe a vision tokenizer; the defaults are Emu3's (section 2.2).

    codebook_size     number of codebook vectors
    code_dim          dimension of a codebook vector
    latent_channels   channels of the encoder's output
    channels          channels of a frame that is encoded
    out_channels      channels of a frame that is decoded
    temporal_factor   number of frames that share a code, a power of 2
    width             channels of the first feature map
    multipliers       factor of `width` at each resolution; each resolution after the first has half the side
    blocks            residual blocks per resolution
    attention_levels  resolutions, counted from 0, at which each residual block is followed by attention
    attention_heads   heads of every attention

    Raises ValueError when channels do not divide into 32 groups or into the heads, when resolutions with attention have
    different numbers of channels, when latents and codebook vectors have different numbers of channels, and for a
    temporal factor that is no power of 2.
    """

    codebook_size: int = 32_768
    code_dim: int = 4
    latent_channels: int = 4
    channels: int = 3
    out_channels: int = 3
    temporal_factor: int = 4
    width: int = 256
    multipliers: tuple[int, ...] = (1, 2, 2, 4)
    blocks: int = 2
    attention_levels: tuple[int, ...] = (3,)
    attention_heads: int = 1

    def __post_init__(self) -> None:
        if not self.multipliers or any(self.width * factor % GROUPS for factor in (1, *self.multipliers)):
            raise ValueError(
                f"width {self.width} with the multipliers {list(self.multipliers)} gives channels that do not divide "
                f"into {GROUPS} groups; expected at least one multiplier, and multiples of {GROUPS}"
            )
        if self.latent_channels != self.code_dim:
            # The temporal layers of the decoder take both latents and codebook vectors.
            raise ValueError(
                f"latent_channels is {self.latent_channels} and code_dim (embed_dim) is {self.code_dim}; expected "
                "equal numbers"
            )
        if self.temporal_factor < 1 or self.temporal_factor & (self.temporal_factor - 1):
            raise ValueError(
                f"temporal_factor (temporal_downsample_factor) is {self.temporal_factor}; expected a power of 2, such "
                "as 1, 2 or 4"
            )
        levels = [level for level in self.attention_levels if level < len(self.multipliers)]
        if any(self.multipliers[level] != self.multipliers[-1] for level in levels):
            raise ValueError(
                f"attention at the resolutions {levels} of the multipliers {list(self.multipliers)}; all attention has "
                "the channels of the last resolution"
            )
        if self.attention_width % self.attention_heads:
            raise ValueError(
                f"{self.attention_width} channels do not divide into {self.attention_heads} heads of attention "
                "(num_attention_heads)"
            )

    @property
    def attention_width(self) -> int:
        """The channels of every feature map with attention: those of the last resolution."""
        return self.width * self.multipliers[-1]

    @property
    def spatial_factor(self) -> int:
        """The number of pixels per code along a side."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def temporal_halvings(self) -> int:
        """The number of times that the encoder halves the number of frames."""
        return self.temporal_factor.bit_length() - 1


@dataclass(frozen=True)
class Emu3Config:
    """Describe an Emu3.

    language        sizes of the decoder
    tokenizer       the vision tokenizer
    vocabulary_map  token id of every token by its name, those of codes included (vocabulary.py)
    attention_bias  whether the linear layers of attention have a bias
    mlp_bias        whether the linear layers of the MLP have a bias
    dropout         of the outputs of attention and MLP, in training; 0.1 in the published files

    Raises ValueError when the names of the vocabulary do not fit the codebook or the decoder, and for a decoder with
    parts of another model.
    """

    language: DecoderConfig
    tokenizer: VisionTokenizerConfig
    vocabulary_map: Mapping[str, int]
    attention_bias: bool = False
    mlp_bias: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_language(self.language)
        _ = self.vocabulary  # raises for names that do not fit

    @cached_property
    def vocabulary(self) -> VisionVocabulary:
        """The token ids of codes and markers."""
        return VisionVocabulary.from_names(self.vocabulary_map, self.tokenizer.codebook_size, self.language.vocab_size)
