"""Multi-head latent attention: keys and values of all heads are expanded from one small vector per token.

That vector, the latent, is cached in place of keys and values (arXiv:2405.04434, section 2.1; arXiv:2412.19437,
section 2.1.1).
"""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lessons.lesson_07_recipes.model.deepseek_config import LOW_RANK_NORM_EPS, DeepSeekConfig
from shared.attention import FULL_ATTENTION, Mask, attention, attention_weights
from shared.transformer import LayerCache, RMSNorm, rotate


class LatentAttention(nn.Module):
    """Multi-head attention whose cache holds one latent and one rotary key per token, shared by all heads.

    The latent has no positions: a rotation between its two linear layers would prevent absorbed decoding. Positions
    enter through `rotary_dim` more elements of each query, and of one key that all heads share (decoupled rotary
    positions).

    absorbed  whether attention is computed on the latents themselves, or on keys and values expanded from them. Both
              give the same result. None absorbs single tokens that attend to a cache, where it needs the least work.
    """

    def __init__(self, config: DeepSeekConfig):
        super().__init__()
        width, heads, bias = config.width, config.heads, config.attention_bias
        head_dim = config.width_per_head
        query_dim = heads * (head_dim + config.rotary_dim)
        self.config, self.width = config, width
        self.absorbed: bool | None = None
        if config.query_latent_dim is None:
            self.query = nn.Linear(width, query_dim, bias=False)
        else:
            self.query_down = nn.Linear(width, config.query_latent_dim, bias=bias)
            self.query_norm = RMSNorm(config.query_latent_dim, LOW_RANK_NORM_EPS)
            self.query_up = nn.Linear(config.query_latent_dim, query_dim, bias=False)
        self.down = nn.Linear(width, config.latent_dim + config.rotary_dim, bias=bias)
        self.latent_norm = RMSNorm(config.latent_dim, LOW_RANK_NORM_EPS)
        self.up = nn.Linear(config.latent_dim, heads * (head_dim + config.value_dim), bias=False)
        self.output = nn.Linear(heads * config.value_dim, width, bias=bias)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        *,
        mask: Mask = FULL_ATTENTION,
        angles: Float[Tensor, "#batch tokens half_rotary_dim"],
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Return what each token gathers from the tokens that `mask` makes visible.

        angles  rotary angles of the tokens
        cache   earlier latents and rotary keys; the new ones are appended, and `mask` covers all of them
        """
        queries = self._queries(x, angles)
        entries = self.compress(x, angles)
        if cache is not None:
            # The cache's place for values stays empty: values are a part of the same entries.
            entries, _ = cache.extend(entries[:, None], entries[:, None, :, :0])
            entries = entries[:, 0]
        absorbed = cache is not None and x.shape[1] == 1 if self.absorbed is None else self.absorbed
        if absorbed:
            gathered = absorbed_attention(
                queries,
                entries,
                self._expansion(),
                self.config.width_per_head,
                mask=mask,
                scale=self.config.score_scale,
            )
        else:
            keys, values = expand(entries, self._expansion(), self.config.width_per_head)
            gathered = cast(Tensor, attention(queries, keys, values, mask, scale=self.config.score_scale))
        return self.output(gathered.transpose(1, 2).flatten(2))

    def weights(
        self,
        x: Float[Tensor, "batch tokens width"],
        *,
        mask: Mask = FULL_ATTENTION,
        angles: Float[Tensor, "#batch tokens half_rotary_dim"],
        first_query: int = 0,
    ) -> Float[Tensor, "batch heads queries tokens"]:
        """Return the attention weights of the tokens from `first_query` on, for a figure."""
        keys, _ = expand(self.compress(x, angles), self._expansion(), self.config.width_per_head)
        mask = mask.from_query(first_query, x.shape[1], x.shape[1], x.device)
        queries = self._queries(x, angles)[:, :, first_query:]
        return attention_weights(queries, keys, mask, scale=self.config.score_scale)

    def compress(
        self, x: Float[Tensor, "batch tokens width"], angles: Float[Tensor, "#batch tokens half_rotary_dim"]
    ) -> Float[Tensor, "batch tokens entry_dim"]:
        """Return each token's cache entry: the normalized latent, then the rotated key (eq. 1 and 3)."""
        latents, rotary_keys = self.down(x).split([self.config.latent_dim, self.config.rotary_dim], dim=-1)
        rotated = self._rotate(rotary_keys[:, None], angles)[:, 0]
        return torch.cat([self.latent_norm(latents), rotated], dim=-1)

    def _queries(
        self, x: Float[Tensor, "batch tokens width"], angles: Float[Tensor, "#batch tokens half_rotary_dim"]
    ) -> Float[Tensor, "batch heads tokens query_dim"]:
        """Return the queries, of which the last `rotary_dim` elements are rotated (eq. 6–9)."""
        config = self.config
        flat = self.query(x) if config.query_latent_dim is None else self.query_up(self.query_norm(self.query_down(x)))
        queries = flat.unflatten(-1, (config.heads, -1)).transpose(1, 2)
        plain, rotary = queries.split([config.width_per_head, config.rotary_dim], dim=-1)
        return torch.cat([plain, self._rotate(rotary, angles)], dim=-1)

    def _rotate(
        self,
        x: Float[Tensor, "batch heads tokens rotary_dim"],
        angles: Float[Tensor, "#batch tokens half_rotary_dim"],
    ) -> Float[Tensor, "batch heads tokens rotary_dim"]:
        return rotate(x, angles, interleaved=self.config.interleaved) * self.config.rotary_magnitude

    def _expansion(self) -> Float[Tensor, "heads expanded latent_dim"]:
        """Return the weights of `up` per head: the rows of its keys, then those of its values."""
        return self.up.weight.unflatten(0, (self.config.heads, -1))


def expand(
    entries: Float[Tensor, "batch tokens entry_dim"],
    expansion: Float[Tensor, "heads expanded latent_dim"],
    head_dim: int,
) -> tuple[Float[Tensor, "batch heads tokens query_dim"], Float[Tensor, "batch heads tokens value_dim"]]:
    """Expand cache entries into the keys and values of every head (arXiv:2412.19437, eq. 2, 4 and 5).

    entries    the latents, then the rotary keys, which all heads share
    expansion  per head, `head_dim` rows that give its keys, then the rows that give its values
    """
    latents, rotary_keys = entries.split([expansion.shape[2], entries.shape[2] - expansion.shape[2]], dim=-1)
    expanded = torch.einsum("btl,hel->bhte", latents, expansion)
    shared = rotary_keys[:, None].expand(-1, expansion.shape[0], -1, -1)
    return torch.cat([expanded[..., :head_dim], shared], dim=-1), expanded[..., head_dim:]


def absorbed_attention(
    queries: Float[Tensor, "batch heads tokens query_dim"],
    entries: Float[Tensor, "batch keys entry_dim"],
    expansion: Float[Tensor, "heads expanded latent_dim"],
    head_dim: int,
    *,
    mask: Mask = FULL_ATTENTION,
    scale: float | None = None,
) -> Float[Tensor, "batch heads tokens value_dim"]:
    """Attend to cache entries without expanding them (arXiv:2405.04434, section 2.1.2 and appendix C).

    A score is qᵀ (K c) = (Kᵀ q)ᵀ c: the expansion K of the keys is applied to the query. An output is
    Σ pⱼ (V cⱼ) = V Σ pⱼ cⱼ: the expansion V of the values is applied to the gathered latent. In between, all heads
    attend to the same entries, as with a single key head.

    The first arguments are those of `expand`.

    scale  factor of the scores; 1/√query_dim when left out, as in the expanded form
    """
    scale = queries.shape[-1] ** -0.5 if scale is None else scale
    # exercise 7.5: attention on the latents
    latent_dim = expansion.shape[2]
    key_expansion, value_expansion = expansion[:, :head_dim], expansion[:, head_dim:]
    absorbed = torch.einsum("bhtd,hdl->bhtl", queries[..., :head_dim], key_expansion)
    absorbed = torch.cat([absorbed, queries[..., head_dim:]], dim=-1)
    latents = entries[:, None, :, :latent_dim]
    gathered = cast(Tensor, attention(absorbed, entries[:, None], latents, mask, scale=scale))
    return torch.einsum("bhtl,hvl->bhtv", gathered, value_expansion)
    # end exercise
