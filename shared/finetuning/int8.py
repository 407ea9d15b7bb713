"""Eight-bit weights: integers, and one scale per output."""

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn

from shared.finetuning.quantized_linear import QuantizedLinear

MAX_CODE = 127


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
