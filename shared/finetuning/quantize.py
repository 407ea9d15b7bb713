"""A model's linear layers in few bits."""

from collections.abc import Callable

from torch import nn

from shared.finetuning.adapters import find_adapters, matching_linears, replace
from shared.finetuning.quantized_linear import QuantizedLinear


def quantize_linears(
    model: nn.Module, kind: Callable[[nn.Linear], QuantizedLinear], targets: tuple[str, ...]
) -> tuple[str, ...]:
    """Store the weights of all linear layers that the patterns name as `kind` (NF4Linear, Int8Linear) does.

    Returns their names. They don't learn any more; adapters put on them do.
    Raises ValueError when a target names no linear layer, a layer shares its weight with another part of the model, is
    quantized already or is adapted: quantize first, then add adapters.
    """
    if find_adapters(model):
        raise ValueError("the model has adapters; quantize it first, then add or load them")
    names = matching_linears(model, targets)
    again = [name for name in names if isinstance(model.get_submodule(name), QuantizedLinear)]
    if again:
        raise ValueError(f"{', '.join(again[:8])} is quantized already; a second rounding would only lose more")
    for name in names:
        replace(model, name, kind(model.get_submodule(name)))
    return names
