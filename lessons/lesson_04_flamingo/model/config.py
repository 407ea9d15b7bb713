"""The sizes of what Flamingo adds to its frozen models (arXiv:2204.14198); the defaults are those of IDEFICS-9B."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ResamplerConfig:
    """Describe a perceiver resampler; the inner width of its MLPs is four times the width of a token.

    width     dimension of a token of the vision encoder, and of a latent
    latents   number of latents per image, for any number of patches
    depth     number of blocks
    heads     attention heads per block
    head_dim  dimension per head
    qk_norm   whether each head's queries and keys are normalized
    """

    width: int = 1280
    latents: int = 64
    depth: int = 6
    heads: int = 16
    head_dim: int = 96
    qk_norm: bool = True


@dataclass(frozen=True)
class FlamingoConfig:
    """Describe the layers that are inserted into the language model.

    cross_attention_interval  a gated cross-attention layer precedes the blocks 0, n, 2n, …
    gates                     one gate value per branch ("scalar") or per feature ("vector"), or "none" as an ablation
    qk_norm                   whether each head's queries and keys are normalized in the inserted layers

    Raises ValueError for other gates, and for an interval below 1.
    """

    resampler: ResamplerConfig
    cross_attention_interval: int = 4
    gates: Literal["scalar", "vector", "none"] = "vector"
    qk_norm: bool = True

    def __post_init__(self) -> None:
        if self.gates not in ("scalar", "vector", "none"):
            raise ValueError(f"gates is {self.gates!r}; choose scalar, vector or none")
        if self.cross_attention_interval < 1:
            raise ValueError(
                f"cross_attention_interval is {self.cross_attention_interval}; "
                "give 1 for cross-attention before every block, 4 for every fourth block"
            )
