"""Adapters in a whole model: put in, switched off, merged, taken out."""

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

    targets   patterns of layers' names, as a shell has them: ("*.query", "*.value"), ("decoder.blocks.*",), ("*",)
    rank      of the correction; each adapted layer learns rank · (in + out) numbers
    alpha     the correction is multiplied by alpha / rank
    dropout   of what goes into the correction
    dora      learn the length of each row of the weight as well (DoRA)

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
    """Adapt every linear layer that a target names, freeze all else, and return the adapted layers' names.

    What else is to learn (a projector, say) is unfrozen afterwards, by hand or by a training stage.
    Raises ValueError when a target names no linear layer, an adapted layer shares its weight with another part of
    the model, or the model has adapters already.
    """
    if find_adapters(model):
        raise ValueError("the model has adapters already; merge_and_remove_adapters or remove_adapters first")
    names = matching_linears(model, config.targets)
    model.requires_grad_(False)
    for name in names:
        kind = DoRALinear if config.dora else LoRALinear
        base = model.get_submodule(name)
        replace(model, name, kind(base, config.rank, config.alpha / config.rank, config.dropout))
    return names


def matching_linears(model: nn.Module, targets: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the linear layers that the patterns name, in the model's order.

    Raises ValueError when a pattern names none, or one of them shares its weight with another part of the model
    (a head tied to its embedding): what is done to one must not happen to the other unseen.
    """
    linears = find_linears(model)
    for target in targets:
        if not fnmatch.filter(linears, target):
            some = ", ".join(list(linears)[:8]) or "none"
            raise ValueError(
                f"no linear layer matches {target!r}; the model has {some}{', …' if len(linears) > 8 else ''}"
            )
    chosen = tuple(name for name in linears if any(fnmatch.fnmatch(name, target) for target in targets))
    owners = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    shared = [name for name in chosen if any(owners[id(p)] > 1 for p in linears[name].parameters())]
    if shared:
        raise ValueError(
            f"{', '.join(shared)} shares its weight with another part of the model; choose targets without it"
        )
    return chosen


def find_linears(model: nn.Module) -> dict[str, nn.Linear | QuantizedLinear]:
    """Every linear layer by name; of an adapted layer the one inside, under the name that it had before."""
    adapted = find_adapters(model)
    inside = tuple(f"{name}." for name in adapted)
    linears = {}
    for name, module in model.named_modules():
        if name in adapted:
            linears[name] = module.base
        # Subclasses of nn.Linear may be read past their `forward`, as nn.MultiheadAttention does: no adapter would act.
        elif (
            name and not name.startswith(inside) and (type(module) is nn.Linear or isinstance(module, QuantizedLinear))
        ):
            linears[name] = module
    return linears


def find_adapters(model: nn.Module) -> dict[str, LoRALinear]:
    """Every adapted layer by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def adapter_parameter_names(model: nn.Module) -> tuple[str, ...]:
    """The names of all parameters that the adapters learn: what a training stage calls `trainable`."""
    return tuple(
        f"{layer}.{name}"
        for layer, adapter in find_adapters(model).items()
        for name, _ in adapter.named_parameters()
        if not name.startswith("base.")
    )


@contextlib.contextmanager
def disable_adapters(model: nn.Module) -> Iterator[None]:
    """Inside, the model is the one from before it was adapted: DPO's reference, at no cost in memory.

    Raises ValueError when adapters are merged, for then there is no switching them off.
    """
    adapters = _adapters_or_complain(model)
    if any(adapter.merged for adapter in adapters.values()):
        raise ValueError("the adapters are merged and cannot be switched off; unmerge_adapters first")
    before = {adapter: adapter.active for adapter in adapters.values()}
    try:
        for adapter in before:
            adapter.active = False
        yield
    finally:
        for adapter, active in before.items():
            adapter.active = active


def merge_adapters(model: nn.Module) -> None:
    """Put every correction into the weight beside it, to run at the old model's speed; `unmerge_adapters` undoes it.

    Raises ValueError when they are merged already or a base is quantized; then none is merged.
    """
    adapters = _adapters_or_complain(model)
    done = []
    try:
        for adapter in adapters.values():
            adapter.merge()
            done.append(adapter)
    except ValueError:
        for adapter in done:
            adapter.unmerge()
        raise


def unmerge_adapters(model: nn.Module) -> None:
    """Take every correction out again; the weights are what they were, to the bit. Raises ValueError if none is in."""
    for adapter in _adapters_or_complain(model).values():
        adapter.unmerge()


def merge_and_remove_adapters(model: nn.Module) -> None:
    """Merge for good: plain linear layers, under the names that they had before, as `save_pretrained` wants them."""
    adapters = _adapters_or_complain(model)
    if not all(adapter.merged for adapter in adapters.values()):
        merge_adapters(model)
    remove_adapters(model)


def remove_adapters(model: nn.Module) -> None:
    """Take the adapters away; the layers they sat on are left as they are now."""
    for name, adapter in _adapters_or_complain(model).items():
        replace(model, name, adapter.base)


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` in the place of the part of `model` that has this name."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _adapters_or_complain(model: nn.Module) -> dict[str, LoRALinear]:
    adapters = find_adapters(model)
    if not adapters:
        raise ValueError("the model has no adapters; add_adapters or load_adapters first")
    return adapters
