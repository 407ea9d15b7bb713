"""Weights of eight bits: whole numbers, and one scale for each output."""

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn

from shared.finetuning.quantized_linear import QuantizedLinear

LARGEST = 127


def quantize_int8(weight: Float[Tensor, "out in"]) -> tuple[Int8[Tensor, "out in"], Float[Tensor, "out"]]:
    """Whole numbers from −127 to 127, and each row's scale: weight ≈ number · scale (arXiv:2208.07339, sections 2.1 and 3.1).

    A row makes one number of the output, so that one row of large weights takes no precision from the others.
    A row of zeros has scale 0.
    """
    weight = weight.detach().float()
    largest = weight.abs().amax(dim=1)
    steps = torch.where(largest == 0, torch.zeros_like(largest), LARGEST / largest)
    return (weight * steps[:, None]).round().to(torch.int8), largest / LARGEST


class Int8Linear(QuantizedLinear):
    """A linear layer with a weight of eight bits. What flows through it keeps its own precision."""

    def __init__(self, linear: nn.Linear):
        super().__init__(linear)
        numbers, scales = quantize_int8(linear.weight)
        self.register_buffer("numbers", numbers)
        self.register_buffer("scales", scales)

    def dequantize(self) -> Float[Tensor, "out in"]:
        return self.numbers * self.scales[:, None]
