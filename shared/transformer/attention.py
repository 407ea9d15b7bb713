"""Multi-head attention with its linear layers: the part of a block in which tokens exchange information."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from shared.attention import FULL_ATTENTION, Mask, attention, attention_scores, attention_weights
from shared.transformer.kv_cache import LayerCache
from shared.transformer.rotary import rotate


@dataclass(frozen=True)
class Scores:
    """How attention scores are computed from queries and keys.

    qk_norm   constructor of a norm over each head's queries and keys, called with head_dim: it bounds the scores
              (arXiv:2302.05442, section 2)
    key_norm  constructor of the keys' norm, where it differs from the queries', as with parameters per head
    scale     factor of q · k; 1/√head_dim when left out
    softcap   limit of the scores, reached smoothly (arXiv:2408.00118, section 2); None for no limit

    Raises ValueError for a norm of the keys without one of the queries.
    """

    qk_norm: Callable[[int], nn.Module] | None = None
    key_norm: Callable[[int], nn.Module] | None = None
    scale: float | None = None
    softcap: float | None = None

    def __post_init__(self) -> None:
        if self.key_norm is not None and self.qk_norm is None:
            raise ValueError("key_norm is given without qk_norm; queries and keys are normalized both, or neither")


PLAIN_SCORES = Scores()


class Attention(nn.Module):
    """Multi-head self-attention, or cross-attention when a context is given (arXiv:1706.03762, section 3.2.2).

    kv_heads       number of key and value heads, each shared by a group of query heads (arXiv:2305.13245);
                   as many as query heads when left out
    head_dim       dimension per head; width / heads when left out
    context_width  width of the context's tokens, if it differs from `width`
    bias           whether the linear layers have a bias; a pair (queries, keys and values; output) when they differ
    scores         how queries and keys are compared

    Raises ValueError when the heads don't divide the width, or the key heads don't divide the heads.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        context_width: int | None = None,
        bias: bool | tuple[bool, bool] = True,
        scores: Scores = PLAIN_SCORES,
    ):
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        if head_dim is None and width % heads:
            raise ValueError(
                f"a width of {width} does not divide into {heads} heads; give head_dim or change one of them"
            )
        if heads % kv_heads:
            raise ValueError(
                f"{heads} query heads can't share {kv_heads} key heads evenly; expected a divisor of {heads}"
            )
        head_dim = width // heads if head_dim is None else head_dim
        context_width = width if context_width is None else context_width
        qkv_bias, output_bias = (bias, bias) if isinstance(bias, bool) else bias

        self.width, self.heads, self.kv_heads, self.head_dim = width, heads, kv_heads, head_dim
        self.query = nn.Linear(width, heads * head_dim, bias=qkv_bias)
        self.key = nn.Linear(context_width, kv_heads * head_dim, bias=qkv_bias)
        self.value = nn.Linear(context_width, kv_heads * head_dim, bias=qkv_bias)
        self.output = nn.Linear(heads * head_dim, width, bias=output_bias)
        self.query_norm = None if scores.qk_norm is None else scores.qk_norm(head_dim)
        key_norm = scores.key_norm or scores.qk_norm
        self.key_norm = None if key_norm is None else key_norm(head_dim)
        self.scale, self.softcap = scores.scale, scores.softcap

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        context: Float[Tensor, "batch context_tokens context_width"] | None = None,
        *,
        mask: Mask = FULL_ATTENTION,
        angles: Float[Tensor, "#batch tokens half_head_dim"] | None = None,
        cache: LayerCache | None = None,
        bias: Float[Tensor, "#batch #heads #tokens #keys"] | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Return what each token of `x` gathers from the tokens of `context`, or of `x` itself.

        angles  rotary angles of the tokens, for self-attention
        cache   earlier keys and values; the new ones are appended, and `mask` covers all of them
        bias    added to the scores

        Raises ValueError when both a context and angles are given.
        """
        queries, keys = self._queries_and_keys(x, context, angles)
        values = self._split_heads(self.value(x if context is None else context), self.kv_heads)
        if cache is not None:
            keys, values = cache.extend(keys, values)
        gathered = attention(queries, keys, values, mask, scale=self.scale, softcap=self.softcap, bias=bias)
        return self.output(cast(Tensor, gathered).transpose(1, 2).flatten(2))

    def weights(
        self,
        x: Float[Tensor, "batch tokens width"],
        context: Float[Tensor, "batch context_tokens context_width"] | None = None,
        *,
        mask: Mask = FULL_ATTENTION,
        angles: Float[Tensor, "#batch tokens half_head_dim"] | None = None,
        first_query: int = 0,
    ) -> Float[Tensor, "batch heads queries keys"]:
        """Return the attention weights, for a figure: each query's softmax probabilities over the keys, per head.

        first_query  weights are computed for the tokens from this one on, which takes less memory than for all
        """
        queries, keys = self._queries_and_keys(x, context, angles)
        if first_query:
            mask = mask.from_query(first_query, queries.shape[2], keys.shape[2], queries.device)
        return attention_weights(queries[:, :, first_query:], keys, mask, scale=self.scale, softcap=self.softcap)

    def scores(
        self,
        x: Float[Tensor, "batch tokens width"],
        *,
        mask: Mask = FULL_ATTENTION,
        angles: Float[Tensor, "#batch tokens half_head_dim"] | None = None,
    ) -> Float[Tensor, "batch heads tokens tokens"]:
        """Return the attention logits of self-attention, before the softmax; −∞ where a key is not visible."""
        queries, keys = self._queries_and_keys(x, None, angles)
        return attention_scores(queries, keys, mask, scale=self.scale, softcap=self.softcap)

    def _queries_and_keys(
        self,
        x: Float[Tensor, "batch tokens width"],
        context: Float[Tensor, "batch context_tokens context_width"] | None,
        angles: Float[Tensor, "#batch tokens half_head_dim"] | None,
    ) -> tuple[Float[Tensor, "batch heads tokens head_dim"], Float[Tensor, "batch kv_heads keys head_dim"]]:
        if context is not None and angles is not None:
            raise ValueError(
                "angles were given together with a context; rotary positions apply to the tokens of self-attention only"
            )
        queries = self._split_heads(self.query(x), self.heads)
        keys = self._split_heads(self.key(x if context is None else context), self.kv_heads)
        if self.query_norm is not None and self.key_norm is not None:
            queries, keys = self.query_norm(queries).to(queries.dtype), self.key_norm(keys).to(keys.dtype)
        if angles is not None:
            queries, keys = rotate(queries, angles), rotate(keys, angles)
        return queries, keys

    def _split_heads(
        self, x: Float[Tensor, "batch tokens inner"], heads: int
    ) -> Float[Tensor, "batch {heads} tokens head_dim"]:
        return x.unflatten(-1, (heads, self.head_dim)).transpose(1, 2)
