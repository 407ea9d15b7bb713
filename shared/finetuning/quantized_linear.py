"""A linear layer whose weight is stored in few bits and never learns, though gradients pass through it."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F


class QuantizedLinear(nn.Module):
    """What layers with stored weights have in common; `dequantize` says how a layer reads its own.

    The weight in full exists for the length of one multiplication, on the way there and once more on the way back
    (QLoRA, arXiv:2305.14314, section 3): autograd keeps the layer, and not the matrix.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        bias = None if linear.bias is None else linear.bias.detach().clone()
        self.register_buffer("bias", bias)
        self.train(linear.training)

    def dequantize(self) -> Float[Tensor, "out in"]:
        """The weight as numbers to calculate with."""
        raise NotImplementedError

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        return self.dequantize()

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        product = _ThroughStoredWeight.apply(x, self)
        return product if self.bias is None else product + self.bias.to(product.dtype)

    def _apply(self, change, recurse: bool = True):
        """Move to another device, but never to another precision: scales rounded to 16 bits would spoil every weight."""
        before = {name: buffer for name, buffer in self.named_buffers() if name != "bias"}
        super()._apply(change, recurse)
        for name, buffer in before.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class _ThroughStoredWeight(Function):
    """x Wᵀ, where the gradient goes on to x and W has none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.dequantize().to(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.layer.dequantize().to(gradient.dtype), None
