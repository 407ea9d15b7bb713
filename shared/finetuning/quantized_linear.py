"""The base of linear layers whose weight is stored in few bits and not trained, while gradients pass through it."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F


class QuantizedLinear(nn.Module):
    """A frozen linear layer that restores its weight for each multiplication; subclasses define `dequantize`.

    The restored weight exists for one multiplication in the forward pass and for one in the backward pass (QLoRA,
    arXiv:2305.14314, section 3): autograd stores the layer, not the weight.
    """

    bias: Tensor | None

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        bias = None if linear.bias is None else linear.bias.detach().clone()
        self.register_buffer("bias", bias)
        self.train(linear.training)

    def dequantize(self) -> Float[Tensor, "out in"]:
        """Return the weight in floating point."""
        raise NotImplementedError

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        return self.dequantize()

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        product = _FrozenProduct.apply(x, self)
        return product if self.bias is None else product + self.bias.to(product.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QuantizedLinear":
        """Move to another device, but keep the dtype: scales rounded to 16 bits would change every weight."""
        before = {name: buffer for name, buffer in self.named_buffers() if name != "bias"}
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class _FrozenProduct(Function):
    """x Wᵀ with a gradient for x and none for W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.dequantize().to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return gradient @ ctx.layer.dequantize().to(gradient.dtype), None
