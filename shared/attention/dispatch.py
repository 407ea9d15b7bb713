"""One attention function for the whole course, and the choice of what computes it.

The backends give the same result to rounding. `attention` picks one from the tensors; the environment variable
ATTENTION_BACKEND (naive, sdpa or triton) forces one, and an impossible choice is an error that says why.
"""

import os
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor

from shared.attention.mask import FULL_ATTENTION, Mask
from shared.attention.naive import attention_backward_naive, attention_naive, attention_weights_naive
from shared.attention.sdpa import attention_backward_sdpa, attention_sdpa

BACKENDS = ("naive", "sdpa", "triton")
WIDEST_HEAD = 256
OLDEST_GPU = (8, 0)


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
    """softmax(cap(q kᵀ · scale) + bias) v over the keys that `mask` makes visible (arXiv:1706.03762, eq. 1).

    scale     what multiplies the scores; 1/√head_dim when left out
    softcap   scores are squeezed smoothly into ±softcap (arXiv:2408.00118, section 2)
    bias      added to the scores, on `naive` and `sdpa`
    return_lse  also give the log of each row's sum of exponentiated scores, in float32 or wider: what blocks
              of keys need to be combined

    Query heads share key heads in groups of heads / kv_heads. A row that sees nothing gives zeros and −∞.
    Raises ValueError when shapes, types or devices don't fit together or the forced backend can't compute this.
    """
    _check(q, k, v, mask, bias)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    backend = choose_backend(q, k, v, bias=bias)
    if backend == "triton":
        out, lse = _triton().attention_triton(q, k, v, mask, scale=scale, softcap=softcap)
    elif backend == "sdpa":
        out, lse = attention_sdpa(q, k, v, mask, scale=scale, softcap=softcap, bias=bias, return_lse=return_lse)
    else:
        out, lse = attention_naive(q, k, v, mask, scale=scale, softcap=softcap, bias=bias, dtype=_widest(q))
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
    """The probabilities by which each query mixes the values, for a picture: they are never needed to attend.

    Raises ValueError as `attention` does.
    """
    _check(q, k, k, mask, bias)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    return attention_weights_naive(q, k, mask, scale=scale, softcap=softcap, bias=bias, dtype=_widest(q))


def attention_backward(
    q: Float[Tensor, "batch heads q_len head_dim"],
    k: Float[Tensor, "batch kv_heads k_len head_dim"],
    v: Float[Tensor, "batch kv_heads k_len value_dim"],
    out: Float[Tensor, "batch heads q_len value_dim"],
    lse: Float[Tensor, "batch heads q_len"],
    grad_out: Float[Tensor, "batch heads q_len value_dim"],
    mask: Mask = FULL_ATTENTION,
    *,
    scale: float | None = None,
    softcap: float | None = None,
) -> tuple[
    Float[Tensor, "batch heads q_len head_dim"],
    Float[Tensor, "batch kv_heads k_len head_dim"],
    Float[Tensor, "batch kv_heads k_len value_dim"],
]:
    """Gradients of (q, k, v) when `out` and `lse` are those over *all* keys, of which k and v may be one block.

    This is what ring attention is built of (arXiv:2310.01889): each process holds a block of keys, sees the global
    log-sum-exp, and the blocks' gradients of q add up. Plain training never calls it; autograd does the same work.

    Raises ValueError as `attention` does, or when out, lse and grad_out don't fit q and v.
    """
    _check(q, k, v, mask, None)
    rows, value_dim = tuple(q.shape[:3]), v.shape[3]
    for name, given, expected in (
        ("out", out, (*rows, value_dim)),
        ("lse", lse, rows),
        ("grad_out", grad_out, (*rows, value_dim)),
    ):
        if tuple(given.shape) != expected:
            raise ValueError(f"{name} has shape {list(given.shape)}; expected {list(expected)} for these q and v")
    scale = q.shape[3] ** -0.5 if scale is None else scale
    backend = choose_backend(q, k, v)
    saved = (q, k, v, out, lse, grad_out, mask)
    if backend == "triton":
        return _triton().attention_backward_triton(*saved, scale=scale, softcap=softcap)
    if backend == "sdpa":
        return attention_backward_sdpa(*saved, scale=scale, softcap=softcap)
    return attention_backward_naive(*saved, scale=scale, softcap=softcap, dtype=_widest(q))


def choose_backend(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None) -> str:
    """The name of the backend for these tensors: the forced one, else triton on CUDA where it can, else sdpa.

    Raises ValueError when ATTENTION_BACKEND names no backend, or one that can't compute this.
    """
    forced = os.environ.get("ATTENTION_BACKEND", "")
    if forced and forced not in BACKENDS:
        raise ValueError(
            f"ATTENTION_BACKEND is {forced!r}; expected one of {', '.join(BACKENDS)}, or nothing to let it be picked"
        )
    if forced in ("naive", "sdpa"):
        return forced
    obstacle = _why_not_triton(q, v, bias)
    if forced and obstacle:
        raise ValueError(f"ATTENTION_BACKEND is 'triton', but {obstacle}; unset it, or set it to 'sdpa'")
    return "triton" if not obstacle and (forced or q.is_cuda) else "sdpa"


def _why_not_triton(q: Tensor, v: Tensor, bias: Tensor | None) -> str | None:
    # Triton's interpreter runs the kernels anywhere, thousands of times slower: to test them and to look inside.
    if not q.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        return f"the tensors are on {q.device} and its kernels run on CUDA alone"
    if q.is_cuda and torch.cuda.get_device_capability(q.device) < OLDEST_GPU:
        return "its kernels need a GPU of compute capability {}.{} or newer (Ampere)".format(*OLDEST_GPU)
    if bias is not None:
        return "its kernels take no bias"
    if q.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"its kernels compute in float32, float16 and bfloat16, not in {q.dtype}"
    if max(q.shape[3], v.shape[3]) > WIDEST_HEAD:
        return f"its kernels take heads of at most {WIDEST_HEAD}, not {max(q.shape[3], v.shape[3])}"
    if _triton() is None:
        return "Triton is not installed here"
    return None


def _triton() -> ModuleType | None:
    """The kernels, loaded when they are first needed: a machine without a GPU need not have Triton at all."""
    try:
        from shared.attention import triton
    except ModuleNotFoundError as missing:
        if missing.name != "triton":
            raise
        return None
    return triton


def _widest(q: Tensor) -> torch.dtype:
    """float64 where the device has it; Apple's GPUs don't."""
    return torch.float32 if q.device.type == "mps" else torch.float64


def _check(q: Tensor, k: Tensor, v: Tensor, mask: Mask, bias: Tensor | None) -> None:
    """Raise ValueError, naming the shapes, unless everything fits together."""
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.ndim != 4:
            raise ValueError(f"{name} has shape {list(tensor.shape)}; expected [batch, heads, length, head_dim]")
    shapes = f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
    if k.shape[:3] != v.shape[:3]:
        raise ValueError(f"k and v must agree in batch, heads and length: {shapes}")
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(f"q and k must agree in batch and head_dim: {shapes}")
    if q.shape[1] % k.shape[1]:
        raise ValueError(f"{q.shape[1]} query heads can't share {k.shape[1]} key heads evenly: {shapes}")
    if not (q.dtype == k.dtype == v.dtype and q.is_floating_point()):
        raise ValueError(f"q, k and v must be of one floating-point type; got {q.dtype}, {k.dtype}, {v.dtype}")
    if not q.device == k.device == v.device:
        raise ValueError(f"q, k and v must be on one device; got {q.device}, {k.device}, {v.device}")
    if bias is not None:
        full = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
        if bias.ndim != 4 or any(given not in (1, needed) for given, needed in zip(bias.shape, full, strict=True)):
            raise ValueError(f"bias has shape {list(bias.shape)}; expected {list(full)}, or 1 in place of any of them")
    mask.check(q.shape[0], q.shape[2], k.shape[2], q.device)
