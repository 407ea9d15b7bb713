"""The attention function of the course, and the choice of the backend that computes it.

All backends give the same result up to rounding. `attention` chooses one from the tensors. The environment variable
ATTENTION_BACKEND (naive, sdpa or triton) forces one; an impossible choice is an error that states the reason.
"""

import importlib.util
import os
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor

from shared.attention.inputs import AttentionInputs, Gradients, OutputGradient, oracle_dtype
from shared.attention.mask import FULL_ATTENTION, Mask
from shared.attention.naive import (
    attention_backward_naive,
    attention_naive,
    attention_scores_naive,
    attention_weights_naive,
)
from shared.attention.sdpa import attention_backward_sdpa, attention_sdpa

BACKENDS = ("naive", "sdpa", "triton")
MAX_HEAD_DIM = 256
MIN_COMPUTE_CAPABILITY = (8, 0)


def attention(
    q: Float[Tensor, "batch heads q_len head_dim"],
    k: Float[Tensor, "batch kv_heads k_len head_dim"],
    v: Float[Tensor, "batch kv_heads k_len value_dim"],
    mask: Mask = FULL_ATTENTION,
    *,
    scale: float | None = None,
    softcap: float | None = None,
    bias: Float[Tensor, "#batch #heads #q_len #k_len"] | None = None,
    return_lse: bool = False,
) -> (
    Float[Tensor, "batch heads q_len value_dim"]
    | tuple[Float[Tensor, "batch heads q_len value_dim"], Float[Tensor, "batch heads q_len"]]
):
    """Compute softmax(cap(q kᵀ · scale) + bias) v over the keys that `mask` makes visible (arXiv:1706.03762, eq. 1).

    scale       factor of the scores; 1/√head_dim when left out
    softcap     limit of the scores, reached smoothly: softcap · tanh(score / softcap) (arXiv:2408.00118, section 2)
    bias        added to the scores; on `naive` and `sdpa`
    return_lse  also return each row's log-sum-exp of the scores, in float32 or wider; with it, results over several
                blocks of keys can be combined

    Query heads share key heads in groups of heads / kv_heads. A row without a visible key gives zeros and −∞.

    Raises ValueError when shapes, dtypes or devices don't fit together, or the forced backend can't compute this.
    """
    inputs = _checked_inputs(q, k, v, mask, scale, softcap, bias)
    backend = choose_backend(q, k, v, bias=bias)
    if backend == "triton":
        out, lse = _kernels().attention_triton(inputs)
    elif backend == "sdpa":
        out, lse = attention_sdpa(inputs, return_lse=return_lse)
    else:
        out, lse = attention_naive(inputs, oracle_dtype(q.device))
    return (out, lse) if return_lse else out


def attention_weights(
    q: Float[Tensor, "batch heads q_len head_dim"],
    k: Float[Tensor, "batch kv_heads k_len head_dim"],
    mask: Mask = FULL_ATTENTION,
    *,
    scale: float | None = None,
    softcap: float | None = None,
    bias: Float[Tensor, "#batch #heads #q_len #k_len"] | None = None,
) -> Float[Tensor, "batch heads q_len k_len"]:
    """Return the softmax probabilities with which each query weights the values, for a figure.

    Arguments and errors are those of `attention`, which never stores these weights.
    """
    return attention_weights_naive(_checked_inputs(q, k, k, mask, scale, softcap, bias), oracle_dtype(q.device))


def attention_scores(
    q: Float[Tensor, "batch heads q_len head_dim"],
    k: Float[Tensor, "batch kv_heads k_len head_dim"],
    mask: Mask = FULL_ATTENTION,
    *,
    scale: float | None = None,
    softcap: float | None = None,
) -> Float[Tensor, "batch heads q_len k_len"]:
    """Return the scores cap(q kᵀ · scale) before the softmax, to measure how large they are; −∞ at hidden keys.

    Arguments and errors are those of `attention`, which never stores the scores.
    """
    return attention_scores_naive(_checked_inputs(q, k, k, mask, scale, softcap, None), oracle_dtype(q.device))


def attention_backward(
    q: Float[Tensor, "batch heads q_len head_dim"],
    k: Float[Tensor, "batch kv_heads k_len head_dim"],
    v: Float[Tensor, "batch kv_heads k_len value_dim"],
    output: OutputGradient,
    mask: Mask = FULL_ATTENTION,
    *,
    scale: float | None = None,
    softcap: float | None = None,
) -> Gradients:
    """Return the gradients of (q, k, v) when `output` covers *all* keys, of which k and v may be one block.

    Ring attention is built from this (arXiv:2310.01889): each process holds a block of keys and receives the global
    log-sum-exp, and the blocks' gradients of q add up. Ordinary training uses autograd, which does the same.

    Raises ValueError as `attention` does, or when `output` does not fit q and v.
    """
    inputs = _checked_inputs(q, k, v, mask, scale, softcap, None)
    output.check(inputs)
    backend = choose_backend(q, k, v)
    if backend == "triton":
        return _kernels().attention_backward_triton(inputs, output)
    if backend == "sdpa":
        return attention_backward_sdpa(inputs, output)
    return attention_backward_naive(inputs, output, oracle_dtype(q.device))


def _checked_inputs(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float | None, softcap: float | None, bias: Tensor | None
) -> AttentionInputs:
    inputs = AttentionInputs(q, k, v, mask, q.shape[-1] ** -0.5 if scale is None else scale, softcap, bias)
    inputs.check()
    return inputs


def choose_backend(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None) -> str:
    """Return the backend for these tensors: the forced one, else triton on CUDA where it can compute this, else sdpa.

    Raises ValueError when ATTENTION_BACKEND names no backend, or one that can't compute this.
    """
    forced = os.environ.get("ATTENTION_BACKEND", "")
    if forced and forced not in BACKENDS:
        raise ValueError(
            f"ATTENTION_BACKEND is {forced!r}; expected one of {', '.join(BACKENDS)}, or nothing to choose one"
        )
    if forced in ("naive", "sdpa"):
        return forced
    obstacle = _triton_obstacle(q, v, bias)
    if forced and obstacle:
        raise ValueError(f"ATTENTION_BACKEND is 'triton', but {obstacle}; unset it, or set it to 'sdpa'")
    return "triton" if not obstacle and (forced or q.is_cuda) else "sdpa"


def _triton_obstacle(q: Tensor, v: Tensor, bias: Tensor | None) -> str | None:
    """Return why the Triton kernels can't compute this, or None."""
    # Triton's interpreter runs the kernels on any device, thousands of times slower: for tests and for study.
    if not q.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        return f"the tensors are on {q.device} and its kernels run on CUDA only"
    if q.is_cuda and torch.cuda.get_device_capability(q.device) < MIN_COMPUTE_CAPABILITY:
        return "its kernels need a GPU of compute capability {}.{} or newer (Ampere)".format(*MIN_COMPUTE_CAPABILITY)
    if bias is not None:
        return "its kernels take no bias"
    if q.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"its kernels compute in float32, float16 and bfloat16, not in {q.dtype}"
    if max(q.shape[3], v.shape[3]) > MAX_HEAD_DIM:
        return f"its kernels take heads of at most {MAX_HEAD_DIM}, not {max(q.shape[3], v.shape[3])}"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed here"
    return None


def _kernels() -> ModuleType:
    """Import the kernels on first use: a machine without a GPU need not have Triton."""
    from shared.attention import triton

    return triton
