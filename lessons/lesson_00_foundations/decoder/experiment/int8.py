"""Weights in int8: a quarter of the memory, and nearly the same model.

Each row of a weight matrix computes one output feature. It is stored as integers from −127 to 127 and one scale per
row, so that a row of large weights does not cost other rows precision (row-wise quantization, arXiv:2208.07339,
section 2.1).
"""

import copy

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn
from torch.nn import functional as F

INT8_MAX = 127


def quantize(weight: Float[Tensor, "out in"]) -> tuple[Int8[Tensor, "out in"], Float[Tensor, "out 1"]]:
    """Return integers and a scale per row, whose product is the weight with an error of at most half a scale.

    The scale is the row's largest absolute weight divided by 127. A row of zeros has scale 1.
    """
    # exercise 0.43: weights of 8 bits
    scale = weight.abs().amax(dim=1, keepdim=True) / INT8_MAX
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (weight / scale).round().to(torch.int8), scale
    # end exercise


class QuantizedLinear(nn.Module):
    """A linear layer without bias that stores int8 values and converts them to floats in every forward pass.

    On a GPU a fused kernel would read the int8 values directly; here the full weights exist during the multiplication.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        values, scale = quantize(linear.weight.detach())
        self.register_buffer("values", values)
        self.register_buffer("scale", scale)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        # There is one scale per output feature, so it can be applied after the sum.
        return F.linear(x, self.values.to(x.dtype)) * self.scale.squeeze(1)


class QuantizedEmbedding(nn.Module):
    """An embedding that stores int8 values and converts only the rows that are looked up."""

    def __init__(self, embedding: nn.Embedding):
        super().__init__()
        values, scale = quantize(embedding.weight.detach())
        self.register_buffer("values", values)
        self.register_buffer("scale", scale)

    @property
    def weight(self) -> Float[Tensor, "entries width"]:
        """The weights as floats."""
        return self.values * self.scale

    def forward(self, indices: Tensor) -> Tensor:
        return self.values[indices] * self.scale[indices]


def quantize_model(model: nn.Module) -> nn.Module:
    """Return a copy of the model with every linear layer and every embedding in int8.

    A head that is tied to the embedding stays tied. Raises ValueError when a linear layer has a bias.
    """
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, part in list(module.named_children()):
            if isinstance(part, nn.Linear):
                if part.bias is not None:
                    raise ValueError(f"the linear layer {name} has a bias; expected a Llama-style model without biases")
                setattr(module, name, QuantizedLinear(part))
            elif isinstance(part, nn.Embedding):
                setattr(module, name, QuantizedEmbedding(part))
    embedding, output = getattr(model, "embedding", None), getattr(model, "output", None)
    if model.config.tied:
        output.values, output.scale = embedding.values, embedding.scale
    return model


def memory_bytes(model: nn.Module) -> int:
    """Return the bytes of a model's parameters and buffers; shared tensors count once."""
    tensors = {tensor.data_ptr(): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
