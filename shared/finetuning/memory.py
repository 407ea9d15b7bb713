"""Memory of training besides activations: weights, gradients, and the optimizer's moments."""

from dataclasses import dataclass

from torch import nn

from shared.finetuning.adapters import find_linears
from shared.finetuning.quantized_linear import QuantizedLinear


@dataclass(frozen=True)
class TrainingBytes:
    """Bytes of a model in training, without the activations, which depend on the batch."""

    weights: int
    gradients: int
    moments: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments


def training_bytes(model: nn.Module, moments: int = 2) -> TrainingBytes:
    """Count the bytes of `model`, as it is frozen and quantized now; tied weights count once.

    moments  numbers that the optimizer stores per trainable weight, in the weight's dtype: 2 for Adam, 1 for momentum
             or Muon, 0 for plain SGD
    """
    weights = sum(tensor.numel() * tensor.element_size() for tensor in [*model.parameters(), *model.buffers()])
    trainable = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return TrainingBytes(weights=weights, gradients=trainable, moments=moments * trainable)


def trainable_fraction(model: nn.Module) -> float:
    """Return the fraction of the model's weights that are trainable; each quantized weight counts as one number."""
    total = sum(p.numel() for p in model.parameters())
    for layer in find_linears(model).values():
        if isinstance(layer, QuantizedLinear):
            total += layer.out_features * (layer.in_features + (layer.bias is not None))
    return sum(p.numel() for p in model.parameters() if p.requires_grad) / total
