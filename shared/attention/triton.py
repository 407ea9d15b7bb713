"""Attention by our own Triton kernels: the door through which PyTorch's autograd and compiler enter them.

Which kernel does what is told in three rooms: `triton_forward`, `triton_backward` and `triton_decode`;
`triton_blocks` decides which tiles need a visit at all. README.md derives them.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from shared.attention import triton_backward, triton_decode, triton_forward
from shared.attention.mask import Mask
from shared.attention.triton_tiles import aligned


def attention_triton(
    q: Float[Tensor, "batch heads q_len head_dim"],
    k: Float[Tensor, "batch kv_heads k_len head_dim"],
    v: Float[Tensor, "batch kv_heads k_len value_dim"],
    mask: Mask,
    *,
    scale: float,
    softcap: float | None = None,
) -> tuple[Float[Tensor, "batch heads q_len value_dim"], Float[Tensor, "batch heads q_len"]]:
    """Attention and its log-sum-exp (float32), both with gradients to q, k and v, but not to those gradients."""
    if scale <= 0:
        # The kernels find the largest score before they scale it, so the sign has to go elsewhere.
        q, scale = (-q, -scale) if scale < 0 else (q * 0, 1.0)
    if torch.compiler.is_compiling():
        return _attention_op(q, k, v, *_mask_to_list(mask), scale, softcap)
    return _Attention.apply(q, k, v, mask, scale, softcap)


def attention_backward_triton(
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
) -> tuple[
    Float[Tensor, "batch heads q_len head_dim"],
    Float[Tensor, "batch kv_heads k_len head_dim"],
    Float[Tensor, "batch kv_heads k_len value_dim"],
]:
    """Gradients of q, k and v from an output and log-sum-exp that may come from more keys than are given here."""
    return _backward(q, k, v, out, lse, grad_out, None, mask, scale, softcap)


def _forward(q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float, softcap: float | None) -> tuple[Tensor, Tensor]:
    q, k, v = (aligned(x) for x in (q, k, v))
    kernels = triton_decode.decode if triton_decode.is_decoding(q, k) else triton_forward.forward
    return kernels(q, k, v, mask, scale=scale, softcap=softcap)


def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    grad_out: Tensor,
    grad_lse: Tensor | None,
    mask: Mask,
    scale: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, out, grad_out = (aligned(x) for x in (q, k, v, out, grad_out))
    return triton_backward.backward(q, k, v, out, lse, grad_out, grad_lse, mask, scale=scale, softcap=softcap)


class _Attention(torch.autograd.Function):
    """Forward keeps the inputs, the output and one number per row; backward computes the scores again."""

    @staticmethod
    def forward(ctx, q, k, v, mask, scale, softcap):
        out, lse = _forward(q, k, v, mask, scale, softcap)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.settings = (mask, scale, softcap)
        return out, lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_out, grad_lse):
        return *_backward(*ctx.saved_tensors, grad_out, grad_lse, *ctx.settings), None, None, None


# A compiled program can't look inside the launch of a kernel; it takes the whole as one operator of known shapes.
# Operators take tensors and numbers, not a Mask, so that is taken apart and put together again.


def _mask_to_list(mask: Mask) -> tuple:
    positions, segments = (mask.position_q, mask.position_k), (mask.segment_q, mask.segment_k)
    return *positions, *segments, mask.span_q, mask.span_k, mask.causal, mask.window


def _mask_from_list(position_q, position_k, segment_q, segment_k, span_q, span_k, causal, window) -> Mask:
    return Mask(causal, window, position_q, position_k, segment_q, segment_k, span_q, span_k)


@torch.library.custom_op("multimodal::attention", mutates_args=())
def _attention_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    position_q: Tensor | None,
    position_k: Tensor | None,
    segment_q: Tensor | None,
    segment_k: Tensor | None,
    span_q: Tensor | None,
    span_k: Tensor | None,
    causal: bool,
    window: int | None,
    scale: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    mask = _mask_from_list(position_q, position_k, segment_q, segment_k, span_q, span_k, causal, window)
    return _forward(q, k, v, mask, scale, softcap)


@_attention_op.register_fake
def _(q, k, v, *rest):
    return triton_forward.empty_results(q, v)


@torch.library.custom_op("multimodal::attention_backward", mutates_args=())
def _attention_backward_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    grad_out: Tensor,
    grad_lse: Tensor,
    position_q: Tensor | None,
    position_k: Tensor | None,
    segment_q: Tensor | None,
    segment_k: Tensor | None,
    span_q: Tensor | None,
    span_k: Tensor | None,
    causal: bool,
    window: int | None,
    scale: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    mask = _mask_from_list(position_q, position_k, segment_q, segment_k, span_q, span_k, causal, window)
    return _backward(q, k, v, out, lse, grad_out, grad_lse, mask, scale, softcap)


@_attention_backward_op.register_fake
def _(q, k, v, *rest):
    return triton_backward.empty_gradients(q, k, v)


def _keep_for_backward(ctx, inputs, output):
    q, k, v, *mask_tensors = inputs[:9]
    ctx.save_for_backward(q, k, v, *output, *mask_tensors)
    ctx.settings = inputs[9:]


def _backward_of_op(ctx, grad_out, grad_lse):
    q, k, v, out, lse, *mask_tensors = ctx.saved_tensors
    grads = _attention_backward_op(q, k, v, out, lse, grad_out, grad_lse, *mask_tensors, *ctx.settings)
    return *grads, *(None,) * 10


_attention_op.register_autograd(_backward_of_op, setup_context=_keep_for_backward)
