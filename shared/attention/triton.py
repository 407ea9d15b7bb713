"""The Triton backend: how PyTorch's autograd and compiler call our kernels.

The kernels are in `triton_forward`, `triton_backward` and `triton_decode`; `triton_blocks` decides which tiles need a
visit. README.md derives them.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from shared.attention import triton_backward, triton_decode, triton_forward
from shared.attention.inputs import AttentionInputs, OutputGradient
from shared.attention.mask import Mask
from shared.attention.triton_launch import aligned


def attention_triton(inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
    """Return attention and its log-sum-exp (float32), both differentiable once with respect to q, k and v."""
    if inputs.scale <= 0:
        # The kernels find the largest score before they scale it, so the sign moves to q.
        q, scale = (-inputs.q, -inputs.scale) if inputs.scale < 0 else (inputs.q * 0, 1.0)
        inputs = replace(inputs, q=q, scale=scale)
    if torch.compiler.is_compiling():
        return _attention_op(inputs.q, inputs.k, inputs.v, *_pack(inputs))
    return _Attention.apply(inputs.q, inputs.k, inputs.v, inputs.mask, inputs.scale, inputs.softcap)


def attention_backward_triton(inputs: AttentionInputs, output: OutputGradient) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v from an output that may cover more keys than `inputs` contains."""
    inputs = _aligned(inputs)
    output = output._replace(out=aligned(output.out), grad_out=aligned(output.grad_out))
    return triton_backward.backward(inputs, output)


def _forward(inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
    inputs = _aligned(inputs)
    if triton_decode.is_decoding(inputs.q, inputs.k):
        return triton_decode.decode(inputs)
    return triton_forward.forward(inputs)


def _aligned(inputs: AttentionInputs) -> AttentionInputs:
    return replace(inputs, q=aligned(inputs.q), k=aligned(inputs.k), v=aligned(inputs.v))


class _Attention(torch.autograd.Function):
    """Forward stores the inputs, the output and one number per row; backward recomputes the scores."""

    @staticmethod
    def forward(ctx, q, k, v, mask, scale, softcap):
        out, lse = _forward(AttentionInputs(q, k, v, mask, scale, softcap))
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.settings = (mask, scale, softcap)
        return out, lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_out, grad_lse):
        q, k, v, out, lse = ctx.saved_tensors
        inputs = AttentionInputs(q, k, v, *ctx.settings)
        return *attention_backward_triton(inputs, OutputGradient(out, lse, grad_out, grad_lse)), None, None, None


# A compiled program can't trace a kernel launch; it treats the whole as one operator of known shapes. Operators take
# tensors and lists of numbers, not a Mask and not None among numbers: both are packed into lists.


def _pack(inputs: AttentionInputs) -> tuple[list[Tensor | None], list[int], list[float]]:
    """Return the mask's six tensors, [causal] or [causal, window], and [scale] or [scale, softcap]."""
    mask = inputs.mask
    positions, segments = [mask.position_q, mask.position_k], [mask.segment_q, mask.segment_k]
    integers = [int(mask.causal)] + ([] if mask.window is None else [mask.window])
    scales = [inputs.scale] + ([] if inputs.softcap is None else [inputs.softcap])
    return [*positions, *segments, mask.span_q, mask.span_k], integers, scales


def _unpack(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask_tensors: Sequence[Tensor | None],
    integers: Sequence[int],
    scales: Sequence[float],
) -> AttentionInputs:
    """Invert `_pack`."""
    window, softcap = integers[1] if len(integers) > 1 else None, scales[1] if len(scales) > 1 else None
    return AttentionInputs(q, k, v, Mask(bool(integers[0]), window, *mask_tensors), scales[0], softcap)


@torch.library.custom_op("multimodal::attention", mutates_args=())
def _attention_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask_tensors: Sequence[Tensor | None],
    integers: Sequence[int],
    scales: Sequence[float],
) -> tuple[Tensor, Tensor]:
    return _forward(_unpack(q, k, v, mask_tensors, integers, scales))


@_attention_op.register_fake
def _(q, k, v, mask_tensors, integers, scales):
    return triton_forward.empty_results(q, v)


@torch.library.custom_op("multimodal::attention_backward", mutates_args=())
def _attention_backward_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    output: Sequence[Tensor],
    mask_tensors: Sequence[Tensor | None],
    integers: Sequence[int],
    scales: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:
    return attention_backward_triton(_unpack(q, k, v, mask_tensors, integers, scales), OutputGradient(*output))


@_attention_backward_op.register_fake
def _(q, k, v, output, mask_tensors, integers, scales):
    return triton_backward.empty_gradients(q, k, v)


def _setup_context(ctx, inputs, output):
    q, k, v, mask_tensors, *ctx.settings = inputs
    ctx.save_for_backward(q, k, v, *output, *mask_tensors)


def _backward_of_op(ctx, grad_out, grad_lse):
    q, k, v, out, lse, *mask_tensors = ctx.saved_tensors
    output = [out, lse, grad_out, grad_lse]
    gradients = _attention_backward_op(q, k, v, output, mask_tensors, *ctx.settings)
    # PyTorch expects a list of gradients for a list of tensors, and one None for a list that contains None.
    no_gradients = None if any(tensor is None for tensor in mask_tensors) else [None] * len(mask_tensors)
    return *gradients, no_gradients, None, None


_attention_op.register_autograd(_backward_of_op, setup_context=_setup_context)
