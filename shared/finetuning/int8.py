"""Eight-bit weights: integers, and one scale per output."""

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn

from shared.finetuning.quantized_linear import QuantizedLinear

MAX_CODE = 127
PACKED_MULTIPLE = 32
"""The packed kernel reads so many weights at a time; other input widths make it read beyond the weight."""
PACKED_ROWS = 16
"""Up to so many rows the packed kernel is used: generation has one row per sequence. With many rows, restoring the
weight once costs little, and the product in float32 is as fast and more precise."""


def quantize_int8(weight: Float[Tensor, "out in"]) -> tuple[Int8[Tensor, "out in"], Float[Tensor, "out"]]:
    """Return codes from −127 to 127 and the scale of each row, with weight ≈ code · scale.

    One row computes one output, so a row of large weights takes no precision from the others. A row of zeros has scale
    0. Source: arXiv:2208.07339, sections 2.1 and 3.1.
    """
    weight = weight.detach().float()
    largest = weight.abs().amax(dim=1)
    factors = torch.where(largest == 0, torch.zeros_like(largest), MAX_CODE / largest)
    return (weight * factors[:, None]).round().to(torch.int8), largest / MAX_CODE


class Int8Linear(QuantizedLinear):
    """A linear layer with an eight-bit weight; inputs and outputs keep their own dtype."""

    codes: Tensor
    scales: Tensor

    def __init__(self, linear: nn.Linear):
        super().__init__(linear)
        codes, scales = quantize_int8(linear.weight)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)

    def dequantize(self) -> Float[Tensor, "out in"]:
        return self.codes * self.scales[:, None]

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        if not self._fits_packed_kernel(x):
            return super().forward(x)
        product = packed_product(x.flatten(0, -2), self.codes, self.scales).view(*x.shape[:-1], -1)
        return product if self.bias is None else product + self.bias.to(product.dtype)

    def _fits_packed_kernel(self, x: Float[Tensor, "*batch in"]) -> bool:
        """Return whether the packed kernel can compute this product, and is faster than restoring the weight."""
        needs_gradient = torch.is_grad_enabled() and x.requires_grad
        rows = x.numel() // self.in_features
        return (
            x.device.type == "cpu"
            and not needs_gradient
            and self.in_features % PACKED_MULTIPLE == 0
            and 1 <= rows <= PACKED_ROWS
        )


def packed_product(
    x: Float[Tensor, "rows in"], codes: Int8[Tensor, "out in"], scales: Float[Tensor, "out"]
) -> Float[Tensor, "rows out"]:
    """Multiply by an eight-bit weight that is never restored: x codesᵀ · scales, in x's dtype.

    PyTorch's kernel for CPUs reads one byte per weight; a float32 product reads four, and with one row reading the
    weights takes most of the time. Inputs and sums are rounded to bfloat16, with a relative error of about 2⁻⁹. The
    kernel itself gets scales of 1, because it would round them too. `in` must be a multiple of `PACKED_MULTIPLE`.
    """
    ones = torch.ones_like(scales, dtype=torch.bfloat16)
    sums = torch._weight_int8pack_mm(x.bfloat16(), codes, ones)
    return (sums.float() * scales).to(x.dtype)
