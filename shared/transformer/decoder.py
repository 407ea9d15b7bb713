"""The decoder-only language model of the course: Llama 3's by default; OPT's, Qwen2's and Gemma's by configuration."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from shared.attention import Mask
from shared.transformer.attention import Attention, Scores
from shared.transformer.block import ACTIVATIONS, MLP, Block, SwiGLU
from shared.transformer.embedding import ScaledEmbedding
from shared.transformer.kv_cache import KVCache
from shared.transformer.normalization import LayerNorm, RMSNorm
from shared.transformer.rotary import Rotary
from shared.transformer.rotary_scaling import RotaryScaling
from shared.transformer.soft_cap import SoftCappedLinear


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
    position_offset  added to every position; with learned positions, as many rows before position 0 are unused
    norm             "rms" or "layer"
    activation       "silu" for SwiGLU with its gate, "gelu_pytorch_tanh" for GEGLU, "relu" for a two-layer MLP

    The following are Gemma's (arXiv:2403.08295) and Gemma 2's (arXiv:2408.00118, section 2):

    norm_offset        added to the weights of every RMSNorm
    post_norms         attention's and the MLP's outputs are normalized too, before they are added
    scaled_embedding   token embeddings are multiplied by √width
    query_scalar       attention scores are divided by its square root; the width of a head when None
    attention_softcap  limit of the attention scores (`soft_cap`)
    output_softcap     limit of the logits
    windows            for each layer, the number of latest tokens that a token attends to, its own included; None for
                       all. Empty for all in every layer

    Raises ValueError when the values exclude each other.
    """

    vocab_size: int
    width: int
    depth: int
    heads: int
    kv_heads: int
    mlp_dim: int
    head_dim: int | None = None
    rotary_base: float = 500_000.0
    rotary_scaling: RotaryScaling | None = None
    norm_eps: float = 1e-5
    tied: bool = False
    qkv_bias: bool = False
    bias: bool = False
    positions: Literal["rotary", "learned"] = "rotary"
    max_positions: int = 2048
    position_offset: int = 0
    norm: Literal["rms", "layer"] = "rms"
    activation: Literal["silu", "gelu_pytorch_tanh", "relu"] = "silu"
    norm_offset: float = 0.0
    post_norms: bool = False
    scaled_embedding: bool = False
    query_scalar: int | None = None
    attention_softcap: float | None = None
    output_softcap: float | None = None
    windows: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        if self.norm == "layer" and (self.norm_offset or self.post_norms):
            raise ValueError("norm_offset and post_norms are defined for norm 'rms' only; this decoder's is 'layer'")
        if self.windows and len(self.windows) != self.depth:
            raise ValueError(f"{len(self.windows)} windows are given for {self.depth} layers; expected one per layer")
        for name in ("query_scalar", "attention_softcap", "output_softcap"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}; expected a number above 0, or None")
        if any(window is not None and window < 1 for window in self.windows):
            raise ValueError(f"windows are {self.windows}; expected at least 1 token per layer, or None")

    @property
    def width_per_head(self) -> int:
        """The width of one attention head."""
        return self.width // self.heads if self.head_dim is None else self.head_dim

    @property
    def rotary_width(self) -> int:
        """The part of an attention head that rotary positions rotate: here the whole head."""
        return self.width_per_head

    @property
    def score_scale(self) -> float | None:
        """The factor of q · k, or None for attention's own, 1/√head_dim.

        Every pair of a head is rotated, so that YaRN's magnitude of queries and keys is a factor of the scores.
        """
        magnitude = 1.0 if self.rotary_scaling is None else self.rotary_scaling.magnitude
        if self.query_scalar is None and magnitude == 1:
            return None
        return magnitude**2 * (self.query_scalar or self.width_per_head) ** -0.5


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
        embedding = ScaledEmbedding if config.scaled_embedding else nn.Embedding
        self.embedding = embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Embedding(rows, config.width) if learned else None
        self.blocks = nn.ModuleList(
            self._block(config) if block is None else block(layer) for layer in range(config.depth)
        )
        self.norm = self._norm(config)
        self.output = self._output(config)
        if config.tied:
            self.output.weight = self.embedding.weight
        scaling = config.rotary_scaling
        self.rotary = None if learned else Rotary(config.rotary_width, base=config.rotary_base, scaling=scaling)
        self._initialize()

    @staticmethod
    def _norm(config: DecoderConfig) -> nn.Module:
        if config.norm == "layer":
            return LayerNorm(config.width, config.norm_eps)
        return RMSNorm(config.width, config.norm_eps, offset=config.norm_offset)

    @staticmethod
    def _output(config: DecoderConfig) -> nn.Linear:
        if config.output_softcap is None:
            return nn.Linear(config.width, config.vocab_size, bias=False)
        return SoftCappedLinear(config.width, config.vocab_size, config.output_softcap)

    @classmethod
    def _block(cls, config: DecoderConfig) -> Block:
        attention = Attention(
            config.width,
            config.heads,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            bias=(config.qkv_bias or config.bias, config.bias),
            scores=Scores(scale=config.score_scale, softcap=config.attention_softcap),
        )
        if config.activation == "relu":
            mlp: nn.Module = MLP(config.width, config.mlp_dim, activation=F.relu, bias=config.bias)
        else:
            activation = F.silu if config.activation == "silu" else ACTIVATIONS[config.activation]
            mlp = SwiGLU(config.width, config.mlp_dim, bias=config.bias, activation=activation)
        return Block(attention, mlp, lambda: cls._norm(config), norms="both" if config.post_norms else "before")

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
        spans: Int[Tensor, "#batch tokens"] | None = None,
        embeddings: Float[Tensor, "batch tokens width"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Return the logits of the token after each token.

        positions   positions of the tokens; None counts them within each segment, or on from the cached tokens
        segments    document that each token belongs to, in packed or ragged batches; −1 is padding
        spans       group of tokens that attend to each other in both directions (a prefix); −1 is none
        embeddings  input vectors in place of `token_ids`, for sequences that contain images
        cache       keys and values of earlier tokens; those of the new tokens are appended

        Raises ValueError when both or neither of token ids and embeddings are given, when the cache is full, or when a
        position exceeds the learned ones.
        """
        inputs = {"positions": positions, "segments": segments, "spans": spans, "embeddings": embeddings}
        return self.output(self.hidden_states(token_ids, **inputs, cache=cache))

    def hidden_states(
        self,
        token_ids: Int[Tensor, "batch tokens"] | None = None,
        *,
        positions: Int[Tensor, "#batch tokens"] | None = None,
        segments: Int[Tensor, "#batch tokens"] | None = None,
        spans: Int[Tensor, "#batch tokens"] | None = None,
        embeddings: Float[Tensor, "batch tokens width"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Return the final hidden states, after the last norm; arguments and errors are those of `forward`."""
        if (token_ids is None) == (embeddings is None):
            both = "both were" if token_ids is not None else "neither was"
            raise ValueError(f"give the decoder either token ids or embeddings; {both} given")
        x = self.embedding(token_ids) if embeddings is None else embeddings
        x, angles, mask = self.block_inputs(x, positions, segments, cache, spans=spans)
        masks = self.layer_masks(mask)
        for layer, block in enumerate(self.blocks):
            x = block(x, mask=masks[layer], angles=angles, cache=None if cache is None else cache[layer])
        return self.norm(x)

    def block_inputs(
        self,
        embeddings: Float[Tensor, "batch tokens width"],
        positions: Int[Tensor, "#batch tokens"] | None = None,
        segments: Int[Tensor, "#batch tokens"] | None = None,
        cache: KVCache | None = None,
        *,
        spans: Int[Tensor, "#batch tokens"] | None = None,
    ) -> tuple[Float[Tensor, "batch tokens width"], Float[Tensor, "#batch tokens half_head_dim"] | None, Mask]:
        """Return what the blocks receive: the first hidden states, the rotary angles if any, and the causal mask.

        With `windows` in the config, `layer_masks` narrows the mask for each block.
        """
        if positions is None:
            positions = self._default_positions(embeddings, segments, cache)
        # The mask follows the order of the tokens and not their positions, which several tokens may share.
        if cache is None:
            mask = Mask(causal=True, segment_q=segments, segment_k=segments, span_q=spans, span_k=spans)
        else:
            mask = cache.reserve(embeddings.shape[1], segments, spans=spans, windowed=any(self.config.windows))
        if self.position_embedding is not None:
            last = int(positions.max())
            if last >= self.config.max_positions:
                raise ValueError(
                    f"a token has position {last}; this decoder has {self.config.max_positions} learned positions"
                )
            embeddings = embeddings + self.position_embedding(positions + self.config.position_offset)
        angles = None if self.rotary is None else self.rotary(positions[..., None] + self.config.position_offset)
        return embeddings, angles, mask

    def layer_masks(self, mask: Mask) -> list[Mask]:
        """Return the mask of each block: the causal mask, with the block's window where it has one.

        Blocks with the same window share one mask, so that a kernel plans its work once for all of them.
        """
        windows = self.config.windows or (None,) * len(self.blocks)
        by_window = {window: mask if window is None else mask.with_window(window) for window in set(windows)}
        return [by_window[window] for window in windows]

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
