"""Settings of Chameleon (arXiv:2405.09818) and of its image tokenizer (arXiv:2203.13131)."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property

from lessons.lesson_11_chameleon.model.vocabulary import ImageVocabulary
from shared.transformer import DecoderConfig

GROUPS = 32
"""Groups of channels of every GroupNorm in the image tokenizer."""


@dataclass(frozen=True)
class VQConfig:
    """Describe the encoder and the codebook of an image tokenizer; the defaults are Chameleon's.

    image_size        side of an image in pixels
    channels          channels of an image
    width             channels of the first feature map
    multipliers       factor of `width` at each resolution; each resolution after the first has half the side
    blocks            residual blocks per resolution
    attention         whether there is attention after the residual blocks, in the middle and at `attention_sizes`
    attention_sizes   sides of feature maps at which each residual block is followed by attention
    latent_channels   channels of the encoder's output
    code_dim          dimension of a codebook vector
    codebook_size     number of codebook vectors

    Raises ValueError when channels do not divide into 32 groups, or the image is too small.
    """

    image_size: int = 512
    channels: int = 3
    width: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks: int = 2
    attention: bool = True
    attention_sizes: tuple[int, ...] = ()
    latent_channels: int = 256
    code_dim: int = 256
    codebook_size: int = 8192

    def __post_init__(self) -> None:
        if not self.multipliers or any(self.width * factor % GROUPS for factor in (1, *self.multipliers)):
            raise ValueError(
                f"width {self.width} with the multipliers {list(self.multipliers)} gives channels that do not divide "
                f"into {GROUPS} groups; expected at least one multiplier, and multiples of {GROUPS}"
            )
        if self.side < 1:
            raise ValueError(
                f"an image of {self.image_size} × {self.image_size} pixels cannot be halved {self.halvings} times"
            )

    @property
    def halvings(self) -> int:
        """The number of times that the encoder halves the side of the image."""
        return len(self.multipliers) - 1

    @property
    def side(self) -> int:
        """The number of codes along one side of an image."""
        return self.image_size // 2**self.halvings

    @property
    def image_tokens(self) -> int:
        """The number of codes of an image."""
        return self.side**2


@dataclass(frozen=True)
class BlockDesign:
    """Describe what a block of Chameleon has beyond Llama's (arXiv:2405.09818, section 2.3).

    qk_norm         whether queries and keys of each head are normalized; every published Chameleon does so
    norms_after     whether the RMSNorms stand after attention and MLP (34B) and not before them (7B)
    attention_bias  whether the linear layers of attention have a bias
    mlp_bias        whether the linear layers of the MLP have a bias
    dropout         of the outputs of attention and MLP, in training; 0.1 in the training of the 7B

    Raises ValueError for a dropout outside [0, 1).
    """

    qk_norm: bool = True
    norms_after: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; expected a probability in [0, 1)")


LANGUAGE_SIZES = {
    *("vocab_size", "width", "depth", "heads", "kv_heads", "mlp_dim", "head_dim"),
    *("rotary_base", "rotary_scaling", "norm_eps", "tied", "max_positions"),
}
"""The settings of a `DecoderConfig` that Chameleon's decoder has; biases and places of norms are its block's design."""


def check_language(language: DecoderConfig) -> None:
    """Raise ValueError for a setting of another decoder, such as Gemma's soft caps, that Chameleon's block lacks."""
    for field in fields(language):
        value = getattr(language, field.name)
        if field.name not in LANGUAGE_SIZES and value != field.default:
            raise ValueError(f"{field.name} is {value!r}; Chameleon's decoder has only the default {field.default!r}")


@dataclass(frozen=True)
class ChameleonConfig:
    """Describe a Chameleon.

    language        sizes of the decoder
    design          what its blocks have beyond Llama's
    tokenizer       the image tokenizer
    vocabulary_map  token id of every token by its name, images included (vocabulary.py)

    Raises ValueError when the names of the vocabulary do not fit the codebook or the decoder, and for a decoder with
    parts of another model.
    """

    language: DecoderConfig
    design: BlockDesign
    tokenizer: VQConfig
    vocabulary_map: Mapping[str, int]

    def __post_init__(self) -> None:
        check_language(self.language)
        _ = self.vocabulary  # raises for names that do not fit

    @cached_property
    def vocabulary(self) -> ImageVocabulary:
        """The token ids of images."""
        return ImageVocabulary.from_names(
            self.vocabulary_map, self.tokenizer.codebook_size, self.tokenizer.image_tokens, self.language.vocab_size
        )
