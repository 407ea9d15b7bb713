"""A Llama-3-style decoder: the language model that the course's later lessons talk through."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from shared.attention import Mask
from shared.transformer.attention import Attention
from shared.transformer.block import Block
from shared.transformer.kv_cache import KVCache
from shared.transformer.mlp import SwiGLU
from shared.transformer.normalization import RMSNorm
from shared.transformer.rotary import Llama3Scaling, Rotary


@dataclass(frozen=True)
class DecoderConfig:
    """The sizes of a decoder; the constants are Llama 3's (arXiv:2407.21783, table 3).

    mlp_dim    width of the feed-forward between its matrices
    head_dim  width / heads when left out
    tied      the matrix that reads tokens in also names them on the way out
    qkv_bias  queries, keys and values have a bias, the attention's output has none (Qwen2, arXiv:2407.10671, section 2.2.1)
    """

    vocab_size: int
    width: int
    depth: int
    heads: int
    kv_heads: int
    mlp_dim: int
    head_dim: int | None = None
    rotary_base: float = 500_000.0
    rotary_scaling: Llama3Scaling | None = None
    norm_eps: float = 1e-5
    tied: bool = False
    qkv_bias: bool = False


class Decoder(nn.Module):
    """Tokens in, logits of the next token out: RMSNorm, rotary positions, grouped queries, SwiGLU."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(self._block(config) for _ in range(config.depth))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.output = nn.Linear(config.width, config.vocab_size, bias=False)
        if config.tied:
            self.output.weight = self.embedding.weight
        head_dim = self.blocks[0].attention.head_dim
        self.rotary = Rotary(head_dim, base=config.rotary_base, scaling=config.rotary_scaling)
        self._initialize()

    @staticmethod
    def _block(config: DecoderConfig) -> Block:
        return Block(
            Attention(
                config.width,
                config.heads,
                kv_heads=config.kv_heads,
                head_dim=config.head_dim,
                bias=config.qkv_bias,
                output_bias=False,
            ),
            SwiGLU(config.width, config.mlp_dim),
            lambda: RMSNorm(config.width, config.norm_eps),
        )

    def _initialize(self) -> None:
        """Small normal weights; what adds to the residual stream smaller still, so that depth does not widen it.

        (GPT-2's rule: each of the 2 · depth additions brings 1/(2 · depth) of the variance.)
        """
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                adds = name.endswith(("attention.output.weight", "mlp.down.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * self.config.depth) ** 0.5 if adds else 0.02)
            elif name.endswith(".bias"):
                nn.init.zeros_(parameter)

    def forward(
        self,
        tokens: Int[Tensor, "batch tokens"] | None = None,
        *,
        positions: Int[Tensor, "#batch tokens"] | None = None,
        segments: Int[Tensor, "#batch tokens"] | None = None,
        embeddings: Float[Tensor, "batch tokens width"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Logits of the token after each token.

        positions   places of the tokens for the rotary angles; left out, counted within each segment, or on from the
                    filled slots of the cache
        segments    which document each token belongs to, in packed or ragged batches; −1 is padding
        embeddings  vectors in place of `tokens`, where not all of them come from the vocabulary (images)
        cache       what was read before; the new tokens are added to it

        Raises ValueError when both or neither of tokens and embeddings are given, or the cache is full.
        """
        return self.output(
            self.features(tokens, positions=positions, segments=segments, embeddings=embeddings, cache=cache)
        )

    def features(
        self,
        tokens: Int[Tensor, "batch tokens"] | None = None,
        *,
        positions: Int[Tensor, "#batch tokens"] | None = None,
        segments: Int[Tensor, "#batch tokens"] | None = None,
        embeddings: Float[Tensor, "batch tokens width"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """The normed vectors from which `output` makes the logits; arguments as in `forward`."""
        if (tokens is None) == (embeddings is None):
            both = "both were" if tokens is not None else "neither was"
            raise ValueError(f"give the decoder either tokens or embeddings; {both} given")
        x = self.embedding(tokens) if embeddings is None else embeddings
        if positions is None:
            positions = self._count(x, segments, cache)
        # The order of the tokens is their order in time, whatever their positions are: the mask only counts.
        if cache is None:
            mask = Mask(causal=True, segment_q=segments, segment_k=segments)
        else:
            mask = cache.place(x.shape[1], segments)
        angles = self.rotary(positions[..., None])
        for layer, block in enumerate(self.blocks):
            x = block(x, mask=mask, angles=angles, cache=None if cache is None else cache[layer])
        return self.norm(x)

    @staticmethod
    def _count(
        x: Float[Tensor, "batch tokens width"], segments: Int[Tensor, "rows tokens"] | None, cache: KVCache | None
    ) -> Int[Tensor, "_ tokens"]:
        if segments is not None and cache is None:
            return positions_within_segments(segments)
        start = 0 if cache is None else cache.length
        return torch.arange(start, start + x.shape[1], device=x.device)[None]

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """An empty cache for `batch` rows of at most `capacity` tokens."""
        return KVCache(len(self.blocks), batch, capacity, device=self.norm.weight.device)


def positions_within_segments(segments: Int[Tensor, "batch tokens"]) -> Int[Tensor, "batch tokens"]:
    """Places counted anew in every run of equal segments: 0 0 0 1 1 gives 0 1 2 0 1."""
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    starts_here = torch.ones_like(segments, dtype=torch.bool)
    starts_here[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return index - torch.where(starts_here, index, 0).cummax(dim=1).values
