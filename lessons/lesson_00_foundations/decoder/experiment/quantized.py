"""Weights of 8 bits: a quarter of the memory, nearly the same model.

Each row of a weight matrix makes one number of the output. It is stored as whole numbers from −127 to 127 and one scale,
so that one row with large weights takes no precision from another (arXiv:2208.07339, section 2.1, calls it row-wise).
"""

import copy

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn
from torch.nn import functional as F

LARGEST = 127


def quantize(weight: Float[Tensor, "out in"]) -> tuple[Int8[Tensor, "out in"], Float[Tensor, "out 1"]]:
    """Whole numbers, and the scale of each row, so that their product is the weight to within half a scale.

    The scale is the row's largest absolute weight divided by 127. A row of zeros has scale 1.
    """
    # exercise 0.43: weights of 8 bits
    scale = weight.abs().amax(dim=1, keepdim=True) / LARGEST
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (weight / scale).round().to(torch.int8), scale
    # end exercise


class QuantizedLinear(nn.Module):
    """A linear layer without bias that stores whole numbers and makes weights of them when it is used.

    On a GPU a fused kernel would read the 8 bits and never write the full weights; here they exist for one multiplication.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        numbers, scale = quantize(linear.weight.detach())
        self.register_buffer("numbers", numbers)
        self.register_buffer("scale", scale)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        # The scale belongs to an output, so it may wait until after the sum.
        return F.linear(x, self.numbers.to(x.dtype)) * self.scale.squeeze(1)


class QuantizedEmbedding(nn.Module):
    """An embedding that stores whole numbers; only the rows looked up are made into vectors."""

    def __init__(self, embedding: nn.Embedding):
        super().__init__()
        numbers, scale = quantize(embedding.weight.detach())
        self.register_buffer("numbers", numbers)
        self.register_buffer("scale", scale)

    @property
    def weight(self) -> Float[Tensor, "entries width"]:
        return self.numbers * self.scale

    def forward(self, indices: Tensor) -> Tensor:
        return self.numbers[indices] * self.scale[indices]


def quantized(model: nn.Module) -> nn.Module:
    """A copy of the model with every linear layer without bias and every embedding in 8 bits.

    A head that is tied to the embedding stays so. Raises ValueError when there is a linear layer with a bias.
    """
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, part in list(module.named_children()):
            if isinstance(part, nn.Linear):
                if part.bias is not None:
                    raise ValueError(
                        f"the linear layer {name} has a bias; these are for Llama-style layers, without one"
                    )
                setattr(module, name, QuantizedLinear(part))
            elif isinstance(part, nn.Embedding):
                setattr(module, name, QuantizedEmbedding(part))
    embedding, output = getattr(model, "embedding", None), getattr(model, "output", None)
    if model.config.tied:
        output.numbers, output.scale = embedding.numbers, embedding.scale
    return model


def bytes_of(model: nn.Module) -> int:
    """Bytes that parameters and buffers take; what is shared counts once."""
    tensors = {tensor.data_ptr(): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
