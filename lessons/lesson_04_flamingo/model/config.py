"""What a Flamingo adds to an eye and a language model (arXiv:2204.14198). The defaults are those of IDEFICS-9B, its open copy."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ResamplerConfig:
    """The sizes of a perceiver resampler; its feed-forward networks are four times as wide as its tokens.

    width     values of one token of the eye, and of a latent
    latents   how many tokens an image becomes, however many patches it has
    depth     blocks
    heads     attention heads in a block
    head_dim  width of a head
    qk_norm   a norm over each head's queries and keys
    """

    width: int = 1280
    latents: int = 64
    depth: int = 6
    heads: int = 16
    head_dim: int = 96
    qk_norm: bool = True


@dataclass(frozen=True)
class FlamingoConfig:
    """What is inserted into the language model.

    every    a gated cross-attention stands before the blocks 0, every, 2 · every, …
    gates    one learned number for each branch ("scalar"), one for each value of a token ("vector"), or "none": an ablation
    qk_norm  a norm over each head's queries and keys in the inserted attentions

    Raises ValueError for other gates, or an interval below 1.
    """

    resampler: ResamplerConfig
    every: int = 4
    gates: Literal["scalar", "vector", "none"] = "vector"
    qk_norm: bool = True

    def __post_init__(self) -> None:
        if self.gates not in ("scalar", "vector", "none"):
            raise ValueError(f"gates is {self.gates!r}, expected scalar, vector or none")
        if self.every < 1:
            raise ValueError(f"every is {self.every}; 1 looks at images before every block, 4 before every fourth")
