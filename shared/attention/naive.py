"""Attention as it is written on the board: the oracle that every faster backend is held to.

Nothing here is clever. The scores of all pairs are laid out in one matrix, in float64 by default.
"""

import functools
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from shared.attention.mask import Mask


def _in_full_precision(compute: Callable) -> Callable:
    """Keep autocast from halving what is computed here: it would round the scores before they are exponentiated."""

    @functools.wraps(compute)
    def computed(q: Tensor, *others, **settings):
        device = q.device.type
        # Some devices (meta, which only counts shapes) know no autocast and refuse the question.
        if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
            return compute(q, *others, **settings)
        with torch.autocast(device, enabled=False):
            return compute(q, *others, **settings)

    return computed


@_in_full_precision
def attention_naive(
    q: Float[Tensor, "batch heads q_len head_dim"],
    k: Float[Tensor, "batch kv_heads k_len head_dim"],
    v: Float[Tensor, "batch kv_heads k_len value_dim"],
    mask: Mask,
    *,
    scale: float,
    softcap: float | None = None,
    bias: Float[Tensor, "#batch #heads #q_len #k_len"] | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[Float[Tensor, "batch heads q_len value_dim"], Float[Tensor, "batch heads q_len"]]:
    """softmax(q kᵀ · scale) v over the visible keys (arXiv:1706.03762, eq. 1), and each row's log-sum-exp.

    All of it is computed in `dtype`; the output returns in the type of `q`, the log-sum-exp in float32 or wider.
    """
    scores = _scores(q, k, mask, scale, softcap, bias, dtype)
    probabilities, lse = _softmax(scores)
    out = probabilities @ _repeat_heads(v, q.shape[1]).to(dtype)
    return out.to(q.dtype), lse.to(torch.promote_types(q.dtype, torch.float32))


@_in_full_precision
def attention_weights_naive(
    q: Float[Tensor, "batch heads q_len head_dim"],
    k: Float[Tensor, "batch kv_heads k_len head_dim"],
    mask: Mask,
    *,
    scale: float,
    softcap: float | None = None,
    bias: Float[Tensor, "#batch #heads #q_len #k_len"] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Float[Tensor, "batch heads q_len k_len"]:
    """The probabilities by which each query mixes the values; a row that sees nothing is all zeros."""
    return _softmax(_scores(q, k, mask, scale, softcap, bias, dtype))[0].to(q.dtype)


@_in_full_precision
def attention_backward_naive(
    q: Float[Tensor, "batch heads q_len head_dim"],
    k: Float[Tensor, "batch kv_heads k_len head_dim"],
    v: Float[Tensor, "batch kv_heads k_len value_dim"],
    out: Float[Tensor, "batch heads q_len value_dim"],
    lse: Float[Tensor, "batch heads q_len"],
    grad_out: Float[Tensor, "batch heads q_len value_dim"],
    mask: Mask,
    *,
    scale: float,
    softcap: float | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[
    Float[Tensor, "batch heads q_len head_dim"],
    Float[Tensor, "batch kv_heads k_len head_dim"],
    Float[Tensor, "batch kv_heads k_len value_dim"],
]:
    """Gradients of q, k and v from the saved output and log-sum-exp (arXiv:2205.14135, appendix B.2).

    `out` and `lse` may come from more keys than are given here: they are global, the keys a block of them.
    The gradients of k and v are then those of this block, and the gradients of q of all blocks add up.
    """
    kv_heads = k.shape[1]
    keys, values = (_repeat_heads(x, q.shape[1]).to(dtype) for x in (k, v))
    queries, out, lse, grad_out = (x.to(dtype) for x in (q, out, lse, grad_out))

    scores = _scores(q, k, mask, scale, softcap, None, dtype)
    # A row that sees nothing has lse = −∞; any finite number there leaves exp(−∞) = 0.
    probabilities = torch.exp(scores - lse.masked_fill(lse == -torch.inf, 0.0)[..., None])
    grad_values = probabilities.mT @ grad_out
    # Softmax sends back p · (g − Σ p g), and Σ_j p_ij g_ij is out_i · grad_out_i: no second pass over the keys.
    grad_scores = probabilities * (grad_out @ values.mT - (out * grad_out).sum(-1, keepdim=True))
    if softcap is not None:
        # d/ds of c · tanh(s/c) is 1 − tanh², and what is masked has passed nothing on already.
        grad_scores = grad_scores * (1 - (scores.masked_fill(scores == -torch.inf, 0.0) / softcap) ** 2)
    grad_queries = grad_scores @ keys * scale
    grad_keys = grad_scores.mT @ queries * scale
    return (
        grad_queries.to(q.dtype),
        _sum_heads(grad_keys, kv_heads).to(k.dtype),
        _sum_heads(grad_values, kv_heads).to(v.dtype),
    )


def _scores(
    q: Float[Tensor, "batch heads q_len head_dim"],
    k: Float[Tensor, "batch kv_heads k_len head_dim"],
    mask: Mask,
    scale: float,
    softcap: float | None,
    bias: Float[Tensor, "#batch #heads #q_len #k_len"] | None,
    dtype: torch.dtype,
) -> Float[Tensor, "batch heads q_len k_len"]:
    """Scaled, capped and biased scores, −∞ where the query does not see the key."""
    scores = q.to(dtype) @ _repeat_heads(k, q.shape[1]).to(dtype).mT * scale
    if softcap is not None:
        # Scores saturate smoothly at ±softcap (Gemma 2, arXiv:2408.00118, section 2).
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias.to(dtype)
    visible = mask.visible(q.shape[2], k.shape[2], q.device)[:, None]
    return scores.masked_fill(~visible, -torch.inf)


def _softmax(
    scores: Float[Tensor, "batch heads q_len k_len"],
) -> tuple[Float[Tensor, "batch heads q_len k_len"], Float[Tensor, "batch heads q_len"]]:
    """Softmax over the keys and its log-sum-exp; a row of −∞ alone gives zeros and −∞, also in gradients no NaN."""
    peak = scores.amax(-1, keepdim=True).detach()
    peak = peak.masked_fill(peak == -torch.inf, 0.0)
    exponentials = torch.exp(scores - peak)
    total = exponentials.sum(-1, keepdim=True)
    sees_nothing = total == 0
    total = total.masked_fill(sees_nothing, 1.0)
    lse = (total.log() + peak).masked_fill(sees_nothing, -torch.inf)
    return exponentials / total, lse.squeeze(-1)


def _repeat_heads(
    x: Float[Tensor, "batch kv_heads length dim"], heads: int
) -> Float[Tensor, "batch {heads} length dim"]:
    """Give each group of query heads its key head: heads 0 … g−1 share the first (arXiv:2305.13245)."""
    return x.repeat_interleave(heads // x.shape[1], dim=1)


def _sum_heads(
    x: Float[Tensor, "batch heads length dim"], kv_heads: int
) -> Float[Tensor, "batch {kv_heads} length dim"]:
    """The transpose of `_repeat_heads`: what the query heads of a group send back adds up."""
    return x.unflatten(1, (kv_heads, -1)).sum(2)
