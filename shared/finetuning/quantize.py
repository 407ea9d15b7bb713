"""Quantize the linear layers of a model."""

from collections.abc import Callable
from typing import cast

from torch import nn

from shared.finetuning.adapters import find_adapters, find_linears, match_linears, replace_submodule
from shared.finetuning.quantized_linear import QuantizedLinear


def quantize_linears(
    model: nn.Module, layer_class: Callable[[nn.Linear], QuantizedLinear], targets: tuple[str, ...]
) -> tuple[str, ...]:
    """Replace all linear layers that match the patterns by a `layer_class` (NF4Linear, Int8Linear); return their names.

    The quantized weights are frozen; adapters on top of them can be trained.

    Raises ValueError when a target matches no linear layer, or a layer shares its weight with another part of the
    model, is quantized already or is adapted: quantize first, then add adapters.
    """
    if find_adapters(model):
        raise ValueError("the model has adapters; quantize it first, then add or load them")
    names = match_linears(model, targets)
    linears = find_linears(model)
    quantized = [name for name in names if isinstance(linears[name], QuantizedLinear)]
    if quantized:
        raise ValueError(f"{', '.join(quantized[:8])} is quantized already; quantizing twice only loses precision")
    for name in names:
        replace_submodule(model, name, layer_class(cast(nn.Linear, linears[name])))
    return names
