"""What training holds in memory besides activations: weights, gradients, and the optimizer's moments."""

from dataclasses import dataclass

from torch import nn

from shared.finetuning.adapters import find_linears
from shared.finetuning.quantized_linear import QuantizedLinear


@dataclass(frozen=True)
class TrainingBytes:
    """Bytes of a model that trains. Activations come on top, and depend on the batch."""

    weights: int
    gradients: int
    moments: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments


def training_bytes(model: nn.Module, moments: int = 2) -> TrainingBytes:
    """Count the bytes of `model`, as it is frozen and quantized now; what is tied counts once.

    moments  numbers that the optimizer keeps for each that learns, as precise as the weight itself:
             2 with Adam, 1 with momentum or Muon, 0 without
    """
    held = sum(tensor.numel() * tensor.element_size() for tensor in [*model.parameters(), *model.buffers()])
    learning = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return TrainingBytes(weights=held, gradients=learning, moments=moments * learning)


def trainable_fraction(model: nn.Module) -> float:
    """Of all numbers in the model's weights the share that learns, from 0 to 1; a quantized weight counts as one number."""
    everything = sum(p.numel() for p in model.parameters())
    for layer in find_linears(model).values():
        if isinstance(layer, QuantizedLinear):
            everything += layer.out_features * (layer.in_features + (layer.bias is not None))
    return sum(p.numel() for p in model.parameters() if p.requires_grad) / everything
