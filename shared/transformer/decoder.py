"""The decoder-only language model of the course: Llama 3's by default, OPT's and Qwen2's by configuration."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from shared.attention import Mask
from shared.transformer.attention import Attention
from shared.transformer.block import MLP, Block, SwiGLU
from shared.transformer.kv_cache import KVCache
from shared.transformer.normalization import LayerNorm, RMSNorm
from shared.transformer.rotary import Llama3Scaling, Rotary


@dataclass(frozen=True)
class DecoderConfig:
    """Describe the sizes and parts of a decoder; the defaults are Llama 3's (arXiv:2407.21783, table 3).

    mlp_dim          inner width of the MLP
    head_dim         width of one attention head; width / heads when None
    tied             the output layer shares the weights of the token embedding
    qkv_bias         biases on queries, keys and values, none on the attention output (Qwen2: arXiv:2407.10671,
                     section 2.2.1)
    bias             biases on every linear layer of a block (OPT: arXiv:2205.01068)
    positions        "rotary" angles in every block, or "learned" vectors that are added to the token embeddings
    max_positions    length of the longest sequence, with learned positions
    position_offset  number of unused rows before the vector of position 0, with learned positions
    norm             "rms" or "layer"
    activation       "silu" for SwiGLU with its gate, "relu" for a two-layer MLP
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
    bias: bool = False
    positions: Literal["rotary", "learned"] = "rotary"
    max_positions: int = 2048
    position_offset: int = 0
    norm: Literal["rms", "layer"] = "rms"
    activation: Literal["silu", "relu"] = "silu"

    @property
    def width_per_head(self) -> int:
        """The width of one attention head."""
        return self.width // self.heads if self.head_dim is None else self.head_dim

    @property
    def rotary_width(self) -> int:
        """The part of an attention head that rotary positions rotate: here the whole head."""
        return self.width_per_head


RESIDUAL_WEIGHTS = ("attention.output.weight", "mlp.down.weight", "mlp.experts.down", "mlp.shared.down.weight")
"""The ends of the names of weights that add to the residual stream; they start smaller than the others."""


class Decoder(nn.Module):
    """Predict the next token at every position: embedding, pre-norm blocks with causal attention, norm, output.

    block  builds the block of each layer, given its number from 0; without it the config describes all blocks
    """

    def __init__(self, config: DecoderConfig, block: Callable[[int], Block] | None = None):
        super().__init__()
        self.config = config
        rows = config.max_positions + config.position_offset
        learned = config.positions == "learned"
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Embedding(rows, config.width) if learned else None
        self.blocks = nn.ModuleList(
            self._block(config) if block is None else block(layer) for layer in range(config.depth)
        )
        self.norm = self._norm(config)
        self.output = nn.Linear(config.width, config.vocab_size, bias=False)
        if config.tied:
            self.output.weight = self.embedding.weight
        scaling = config.rotary_scaling
        self.rotary = None if learned else Rotary(config.rotary_width, base=config.rotary_base, scaling=scaling)
        self._initialize()

    @staticmethod
    def _norm(config: DecoderConfig) -> nn.Module:
        norm = {"rms": RMSNorm, "layer": LayerNorm}[config.norm]
        return norm(config.width, config.norm_eps)

    @classmethod
    def _block(cls, config: DecoderConfig) -> Block:
        attention = Attention(
            config.width,
            config.heads,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            bias=(config.qkv_bias or config.bias, config.bias),
        )
        if config.activation == "silu":
            mlp: nn.Module = SwiGLU(config.width, config.mlp_dim, bias=config.bias)
        else:
            mlp = MLP(config.width, config.mlp_dim, activation=F.relu, bias=config.bias)
        return Block(attention, mlp, lambda: cls._norm(config))

    def _initialize(self) -> None:
        """Draw small normal weights, smaller still for the layers that add to the residual stream.

        (GPT-2's rule: each of the 2 · depth additions contributes 1/(2 · depth) of the variance.)
        """
        for name, parameter in self.named_parameters():
            if parameter.ndim >= 2:  # three axes for a stack of matrices, one per expert
                adds = name.endswith(RESIDUAL_WEIGHTS)
                nn.init.normal_(parameter, std=0.02 / (2 * self.config.depth) ** 0.5 if adds else 0.02)
            elif name.endswith(".bias"):
                nn.init.zeros_(parameter)

    def forward(
        self,
        token_ids: Int[Tensor, "batch tokens"] | None = None,
        *,
        positions: Int[Tensor, "#batch tokens"] | None = None,
        segments: Int[Tensor, "#batch tokens"] | None = None,
        embeddings: Float[Tensor, "batch tokens width"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Return the logits of the token after each token.

        positions   positions of the tokens; None counts them within each segment, or on from the cached tokens
        segments    document that each token belongs to, in packed or ragged batches; −1 is padding
        embeddings  input vectors in place of `token_ids`, for sequences that contain images
        cache       keys and values of earlier tokens; those of the new tokens are appended

        Raises ValueError when both or neither of token ids and embeddings are given, when the cache is full, or when a
        position exceeds the learned ones.
        """
        return self.output(
            self.hidden_states(token_ids, positions=positions, segments=segments, embeddings=embeddings, cache=cache)
        )

    def hidden_states(
        self,
        token_ids: Int[Tensor, "batch tokens"] | None = None,
        *,
        positions: Int[Tensor, "#batch tokens"] | None = None,
        segments: Int[Tensor, "#batch tokens"] | None = None,
        embeddings: Float[Tensor, "batch tokens width"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Return the final hidden states, after the last norm; arguments and errors are those of `forward`."""
        if (token_ids is None) == (embeddings is None):
            both = "both were" if token_ids is not None else "neither was"
            raise ValueError(f"give the decoder either token ids or embeddings; {both} given")
        x = self.embedding(token_ids) if embeddings is None else embeddings
        x, angles, mask = self.block_inputs(x, positions, segments, cache)
        for layer, block in enumerate(self.blocks):
            x = block(x, mask=mask, angles=angles, cache=None if cache is None else cache[layer])
        return self.norm(x)

    def block_inputs(
        self,
        embeddings: Float[Tensor, "batch tokens width"],
        positions: Int[Tensor, "#batch tokens"] | None = None,
        segments: Int[Tensor, "#batch tokens"] | None = None,
        cache: KVCache | None = None,
    ) -> tuple[Float[Tensor, "batch tokens width"], Float[Tensor, "#batch tokens half_head_dim"] | None, Mask]:
        """Return what the blocks receive: the first hidden states, the rotary angles if any, and the causal mask."""
        if positions is None:
            positions = self._default_positions(embeddings, segments, cache)
        # The mask follows the order of the tokens and not their positions, which several tokens may share.
        if cache is None:
            mask = Mask(causal=True, segment_q=segments, segment_k=segments)
        else:
            mask = cache.reserve(embeddings.shape[1], segments)
        if self.position_embedding is not None:
            last = int(positions.max())
            if last >= self.config.max_positions:
                raise ValueError(
                    f"a token has position {last}; this decoder has {self.config.max_positions} learned positions"
                )
            embeddings = embeddings + self.position_embedding(positions + self.config.position_offset)
        angles = None if self.rotary is None else self.rotary(positions[..., None])
        return embeddings, angles, mask

    @staticmethod
    def _default_positions(
        x: Float[Tensor, "batch tokens width"], segments: Int[Tensor, "rows tokens"] | None, cache: KVCache | None
    ) -> Int[Tensor, "_ tokens"]:
        if segments is not None and cache is None:
            return positions_within_segments(segments)
        start = 0 if cache is None else cache.length
        return torch.arange(start, start + x.shape[1], device=x.device)[None]

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """Return an empty cache for `batch` rows of at most `capacity` tokens."""
        return KVCache(len(self.blocks), batch, capacity, device=self.embedding.weight.device)


def positions_within_segments(segments: Int[Tensor, "batch tokens"]) -> Int[Tensor, "batch tokens"]:
    """Return positions that start again in every run of equal segments: 0 0 0 1 1 gives 0 1 2 0 1."""
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return index - torch.where(starts, index, 0).cummax(dim=1).values
