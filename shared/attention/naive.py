"""Attention by its definition: the oracle that every faster backend is compared with.

The scores of all pairs are stored in one matrix, in float64 by default.
"""

import functools
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from shared.attention.inputs import AttentionInputs, Gradients, OutputGradient


def _in_full_precision(compute: Callable) -> Callable:
    """Disable autocast inside, which would round the scores to 16 bits before the exponential."""

    @functools.wraps(compute)
    def without_autocast(inputs: AttentionInputs, *others, **settings):
        device = inputs.q.device.type
        # Some devices (meta, which only tracks shapes) do not support autocast and reject the query.
        if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
            return compute(inputs, *others, **settings)
        with torch.autocast(device, enabled=False):
            return compute(inputs, *others, **settings)

    return without_autocast


@_in_full_precision
def attention_naive(
    inputs: AttentionInputs, dtype: torch.dtype = torch.float64
) -> tuple[Float[Tensor, "batch heads q_len value_dim"], Float[Tensor, "batch heads q_len"]]:
    """Return softmax(q kᵀ · scale) v over the visible keys (arXiv:1706.03762, eq. 1), and each row's log-sum-exp.

    Everything is computed in `dtype`. The output has the dtype of `q`, the log-sum-exp has float32 or wider.
    """
    q, v = inputs.q, inputs.v
    probabilities, lse = _softmax(_scores(inputs, dtype))
    out = probabilities @ _repeat_heads(v, q.shape[1]).to(dtype)
    return out.to(q.dtype), lse.to(torch.promote_types(q.dtype, torch.float32))


@_in_full_precision
def attention_weights_naive(
    inputs: AttentionInputs, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "batch heads q_len k_len"]:
    """Return the softmax probabilities of each query over the keys; all zeros where no key is visible."""
    return _softmax(_scores(inputs, dtype))[0].to(inputs.q.dtype)


@_in_full_precision
def attention_scores_naive(
    inputs: AttentionInputs, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "batch heads q_len k_len"]:
    """Return the scores of each query with every key; −∞ where the key is not visible."""
    return _scores(inputs, dtype).to(inputs.q.dtype)


@_in_full_precision
def attention_backward_naive(
    inputs: AttentionInputs, output: OutputGradient, dtype: torch.dtype = torch.float64
) -> Gradients:
    """Return the gradients of q, k and v from the output and its log-sum-exp (arXiv:2205.14135, appendix B.2).

    `output` may cover more keys than `inputs` contains: then these keys are one block of them. The gradients of k and
    v are those of this block, and the gradients of q of all blocks add up. There is no `bias` in a backward pass.
    """
    q, k, v, kv_heads = inputs.q, inputs.k, inputs.v, inputs.k.shape[1]
    keys, values = (_repeat_heads(x, q.shape[1]).to(dtype) for x in (k, v))
    queries, out, lse, grad_out = (x.to(dtype) for x in (q, output.out, output.lse, output.grad_out))

    scores = _scores(inputs, dtype)
    # A row without a visible key has lse = −∞; any finite number in its place leaves exp(−∞) = 0.
    probabilities = torch.exp(scores - lse.masked_fill(lse == -torch.inf, 0.0)[..., None])
    grad_values = probabilities.mT @ grad_out
    # The gradient through softmax is p · (g − Σ p g), and Σ_j p_ij g_ij is out_i · grad_out_i.
    grad_scores = probabilities * (grad_out @ values.mT - (out * grad_out).sum(-1, keepdim=True))
    if inputs.softcap is not None:
        # d/ds of c · tanh(s/c) is 1 − tanh²; masked scores have gradient 0 already.
        capped = scores.masked_fill(scores == -torch.inf, 0.0) / inputs.softcap
        grad_scores = grad_scores * (1 - capped**2)
    grad_queries = grad_scores @ keys * inputs.scale
    grad_keys = grad_scores.mT @ queries * inputs.scale
    return (
        grad_queries.to(q.dtype),
        _sum_heads(grad_keys, kv_heads).to(k.dtype),
        _sum_heads(grad_values, kv_heads).to(v.dtype),
    )


def _scores(inputs: AttentionInputs, dtype: torch.dtype) -> Float[Tensor, "batch heads q_len k_len"]:
    """Return scaled, capped and biased scores, −∞ where the key is not visible."""
    q, k, softcap = inputs.q, inputs.k, inputs.softcap
    scores = q.to(dtype) @ _repeat_heads(k, q.shape[1]).to(dtype).mT * inputs.scale
    if softcap is not None:
        # Scores saturate smoothly at ±softcap (Gemma 2, arXiv:2408.00118, section 2).
        scores = softcap * torch.tanh(scores / softcap)
    if inputs.bias is not None:
        scores = scores + inputs.bias.to(dtype)
    visible = inputs.mask.visible(q.shape[2], k.shape[2], q.device)[:, None]
    return scores.masked_fill(~visible, -torch.inf)


def _softmax(
    scores: Float[Tensor, "batch heads q_len k_len"],
) -> tuple[Float[Tensor, "batch heads q_len k_len"], Float[Tensor, "batch heads q_len"]]:
    """Return softmax over the keys and its log-sum-exp; a row of −∞ gives zeros and −∞, without NaN in gradients."""
    peak = scores.amax(-1, keepdim=True).detach()
    peak = peak.masked_fill(peak == -torch.inf, 0.0)
    exponentials = torch.exp(scores - peak)
    total = exponentials.sum(-1, keepdim=True)
    empty = total == 0
    total = total.masked_fill(empty, 1.0)
    lse = (total.log() + peak).masked_fill(empty, -torch.inf)
    return exponentials / total, lse.squeeze(-1)


def _repeat_heads(
    x: Float[Tensor, "batch kv_heads length dim"], heads: int
) -> Float[Tensor, "batch {heads} length dim"]:
    """Repeat each key head for its group of query heads: heads 0 … g−1 use the first (arXiv:2305.13245)."""
    return x.repeat_interleave(heads // x.shape[1], dim=1)


def _sum_heads(
    x: Float[Tensor, "batch heads length dim"], kv_heads: int
) -> Float[Tensor, "batch {kv_heads} length dim"]:
    """Add up the gradients of the query heads of each group: the transpose of `_repeat_heads`."""
    return x.unflatten(1, (kv_heads, -1)).sum(2)
