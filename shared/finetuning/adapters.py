"""LoRA and DoRA adapters in a model: add, disable, merge, remove."""

import contextlib
import fnmatch
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from shared.finetuning.lora import DoRALinear, LoRALinear
from shared.finetuning.quantized_linear import QuantizedLinear


@dataclass(frozen=True)
class AdapterConfig:
    """Which linear layers are adapted, and how.

    targets  shell patterns of layer names: ("*.query", "*.value"), ("decoder.blocks.*",), ("*",)
    rank     rank of the update; each adapted layer has rank · (in + out) trainable weights
    alpha    the update is multiplied by alpha / rank
    dropout  dropout of the update's input
    dora     also train the norm of each row of the weight (DoRA)

    Raises ValueError when there is no target, or alpha is not positive.
    """

    targets: tuple[str, ...]
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    dora: bool = False

    def __post_init__(self):
        if isinstance(self.targets, str) or not self.targets:
            raise ValueError(
                f"targets are {self.targets!r}; expected a tuple of patterns such as ('*.query', '*.value')"
            )
        if self.alpha <= 0:
            raise ValueError(f"alpha is {self.alpha}; expected a positive number, often twice the rank")


def add_adapters(model: nn.Module, config: AdapterConfig) -> tuple[str, ...]:
    """Adapt every linear layer that matches a target, freeze everything else, and return the adapted layers' names.

    Other parts to train (a projector, for example) are unfrozen afterwards, directly or by a training stage.

    Raises ValueError when a target matches no linear layer, an adapted layer shares its weight with another part of the
    model, or the model has adapters already.
    """
    if find_adapters(model):
        raise ValueError("the model has adapters already; merge_and_remove_adapters or remove_adapters first")
    names, linears = match_linears(model, config.targets), find_linears(model)
    model.requires_grad_(False)
    adapter_class = DoRALinear if config.dora else LoRALinear
    for name in names:
        adapter = adapter_class(linears[name], config.rank, config.alpha / config.rank, config.dropout)
        replace_submodule(model, name, adapter)
    return names


def match_linears(model: nn.Module, targets: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the linear layers that match the patterns, in the model's order.

    Raises ValueError when a pattern matches none, or a layer shares its weight with another part of the model (an
    output layer tied to the embedding), which would change with it.
    """
    linears = find_linears(model)
    for target in targets:
        if not fnmatch.filter(linears, target):
            examples = ", ".join(list(linears)[:8]) or "none"
            raise ValueError(
                f"no linear layer matches {target!r}; the model has {examples}{', …' if len(linears) > 8 else ''}"
            )
    names = tuple(name for name in linears if any(fnmatch.fnmatch(name, target) for target in targets))
    tied = find_tied_linears(model)
    shared = [name for name in names if name in tied]
    if shared:
        raise ValueError(
            f"{', '.join(shared)} shares its weight with another part of the model; choose targets without it"
        )
    return names


def find_linears(model: nn.Module) -> dict[str, nn.Linear | QuantizedLinear]:
    """Return every linear layer by name; an adapted layer's base is listed under the adapted layer's name."""
    adapted = find_adapters(model)
    prefixes = tuple(f"{name}." for name in adapted)
    linears: dict[str, nn.Linear | QuantizedLinear] = {}
    for name, module in model.named_modules():
        # The weights of nn.Linear's subclasses may be used without `forward`, as nn.MultiheadAttention does: an adapter
        # would have no effect there.
        is_linear = type(module) is nn.Linear or isinstance(module, QuantizedLinear)
        if name in adapted:
            linears[name] = adapted[name].base
        elif is_linear and name and not name.startswith(prefixes):
            linears[name] = module
    return linears


def find_tied_linears(model: nn.Module) -> set[str]:
    """Return the names of the linear layers that share a weight with another part, such as a tied output layer."""
    owners = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    return {name for name, linear in find_linears(model).items() if any(owners[id(p)] > 1 for p in linear.parameters())}


def find_adapters(model: nn.Module) -> dict[str, LoRALinear]:
    """Return every adapted layer by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def adapter_parameter_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of all trainable parameters of the adapters, as a training stage takes them in `trainable`."""
    return tuple(
        f"{layer}.{name}"
        for layer, adapter in find_adapters(model).items()
        for name, _ in adapter.named_parameters()
        if not name.startswith("base.")
    )


@contextlib.contextmanager
def disable_adapters(model: nn.Module) -> Iterator[None]:
    """Disable the adapters inside a `with` block: the model from before it was adapted, such as DPO's reference.

    Raises ValueError when adapters are merged, because merged adapters can't be disabled.
    """
    adapters = _require_adapters(model)
    if any(adapter.merged for adapter in adapters.values()):
        raise ValueError("the adapters are merged and cannot be disabled; unmerge_adapters first")
    before = {adapter: adapter.active for adapter in adapters.values()}
    try:
        for adapter in before:
            adapter.active = False
        yield
    finally:
        for adapter, active in before.items():
            adapter.active = active


def merge_adapters(model: nn.Module) -> None:
    """Add every update to its base's weight, so that the model is as fast as before; `unmerge_adapters` undoes it.

    Raises ValueError when an adapter is merged already or a base is quantized; then none is merged.
    """
    adapters = _require_adapters(model)
    merged: list[LoRALinear] = []
    try:
        for adapter in adapters.values():
            adapter.merge()
            merged.append(adapter)
    except ValueError:
        for adapter in merged:
            adapter.unmerge()
        raise


def unmerge_adapters(model: nn.Module) -> None:
    """Restore the weights from before merging, exactly. Raises ValueError when an adapter is not merged."""
    for adapter in _require_adapters(model).values():
        adapter.unmerge()


def merge_and_remove_adapters(model: nn.Module) -> None:
    """Merge the adapters into plain linear layers under their original names, as `save_pretrained` needs them."""
    adapters = _require_adapters(model)
    if not all(adapter.merged for adapter in adapters.values()):
        merge_adapters(model)
    remove_adapters(model)


def remove_adapters(model: nn.Module) -> None:
    """Remove the adapters; their base layers stay as they are now."""
    for name, adapter in _require_adapters(model).items():
        replace_submodule(model, name, adapter.base)


def replace_submodule(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the submodule of `model` with this name by `module`."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _require_adapters(model: nn.Module) -> dict[str, LoRALinear]:
    adapters = find_adapters(model)
    if not adapters:
        raise ValueError("the model has no adapters; add_adapters or load_adapters first")
    return adapters
