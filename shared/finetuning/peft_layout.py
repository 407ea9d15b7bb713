"""Adapters on disk, in the layout of the PEFT library: `adapter_config.json` and `adapter_model.safetensors`.

Only the adapters are saved, a few megabytes for a model of gigabytes, under the names of the *published* model: PEFT
loads adapters that were trained here, and the other way round.
"""

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from shared.atomic import write_atomically
from shared.errors import CourseError
from shared.finetuning.adapters import find_adapters, find_linears, find_tied_linears, replace_submodule
from shared.finetuning.lora import DoRALinear, LoRALinear
from shared.finetuning.quantized_linear import QuantizedLinear
from shared.pretrained import Rename, WeightNames

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
DOWN, UP, MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"
# Settings that are read, and settings that do not change the meaning of the weights.
READ = {"peft_type", "r", "lora_alpha", "lora_dropout", "use_dora", "use_rslora", "rank_pattern", "alpha_pattern"}
IGNORED = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "exclude_modules",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",  # known from the names of the weights
    "task_type",
}
# Initializations that leave the base weight unchanged; PiSSA, OLoRA and others subtract from it.
PLAIN_INITIALIZATIONS = (True, False, "gaussian", "orthogonal", "eva")


def save_adapters(
    folder: Path | str, model: nn.Module, names: WeightNames | None = None, *, base_model: str | None = None
) -> None:
    """Write the model's adapters to `folder`.

    names       the names of the published model; without it the layers keep the model's own names
    base_model  name or folder of the published model, which is stored in the config

    Raises ValueError when there are no adapters. Raises CourseError when a file can't be written, and as
    `published_adapter_names` does.
    """
    adapters, published = find_adapters(model), published_adapter_names(model, names)
    tensors = {}
    for name, adapter in adapters.items():
        for key, tensor in _tensors(adapter).items():
            tensors[f"{PREFIX}{published[name]}.{key}"] = tensor.detach().cpu().contiguous()
    config = _config({published[name]: adapter for name, adapter in adapters.items()}, base_model)
    folder = Path(folder)
    write_atomically(folder / WEIGHTS, safetensors.torch.save(tensors, metadata={"format": "pt"}))
    write_atomically(folder / CONFIG, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())


def published_adapter_names(model: nn.Module, names: WeightNames | None = None) -> dict[str, str]:
    """Return the published name of each adapted layer. Call it before training to learn whether saving will succeed.

    Raises ValueError when there are no adapters. Raises CourseError when an adapted layer has no published name of its
    own: it is only a part of a published layer (a query inside a fused qkv), or the published model lacks it.
    """
    adapters = find_adapters(model)
    if not adapters:
        raise ValueError("the model has no adapters to save; add_adapters first")
    published = _published_names(model, names)
    unnamed = [name for name in adapters if name not in published]
    if unnamed:
        raise CourseError(
            f"{', '.join(unnamed[:8])}: not in the published model, or only parts of a published layer, "
            "which can only be adapted as a whole; choose other targets"
        )
    return {name: published[name] for name in adapters}


def load_adapters(folder: Path | str, model: nn.Module, names: WeightNames | None = None) -> tuple[str, ...]:
    """Add the adapters in `folder` to `model`, freeze everything else, and return the adapted layers' names.

    Raises ValueError when the model has adapters already. Raises CourseError when the folder contains no complete
    adapters, they are of an unsupported type, or a layer of their name and shape is missing; nothing is changed then.
    """
    if find_adapters(model):
        raise ValueError("the model has adapters already; merge_and_remove_adapters or remove_adapters first")
    folder = Path(folder)
    config, tensors = _read_config(folder / CONFIG), _read_tensors(folder / WEIGHTS)
    internal = {published: name for name, published in _published_names(model, names).items()}
    linears, layers = find_linears(model), _by_layer(tensors)
    problems = []
    for published, parts in layers.items():
        if published not in internal:
            problems.append(f"{published}: the model has no linear layer of this name")
        elif problem := _problem(linears[internal[published]], published, parts, config):
            problems.append(problem)
    if problems:
        raise CourseError(f"the adapters in {folder} do not fit this model:\n  " + "\n  ".join(problems))
    model.requires_grad_(False)
    for published, parts in layers.items():
        adapter = _adapter(linears[internal[published]], published, parts, config)
        replace_submodule(model, internal[published], adapter)
    return tuple(internal[published] for published in layers)


def _tensors(adapter: LoRALinear) -> dict[str, Tensor]:
    tensors = {DOWN: adapter.lora_down.weight, UP: adapter.lora_up.weight}
    return tensors | ({MAGNITUDE: adapter.magnitude} if isinstance(adapter, DoRALinear) else {})


def _published_names(model: nn.Module, names: WeightNames | None) -> dict[str, str]:
    """Return the published name of each linear layer that can be adapted.

    Left out are layers that are parts of a published one, that the published model lacks, or whose weight is tied.
    """
    tied = find_tied_linears(model)
    linears = {name: linear for name, linear in find_linears(model).items() if name not in tied}
    if names is None:
        return {name: name for name in linears}
    # Meta tensors suffice: the rules use names and shapes only.
    weights = {
        f"{name}.weight": torch.empty(l.out_features, l.in_features, device="meta") for name, l in linears.items()
    }
    published = {}
    for match in names.matches(weights, skip_uncovered=True):
        if isinstance(match.rule, Rename) and match.rule.shape is None:
            published[match.model[0].removesuffix(".weight")] = match.published[0].removesuffix(".weight")
    return published


def _config(adapters: dict[str, LoRALinear], base_model: str | None) -> dict[str, Any]:
    """Return the config: the most frequent rank and alpha, and a pattern for each layer that differs."""
    ranks = {name: adapter.rank for name, adapter in adapters.items()}
    alphas = {name: _round_if_integer(adapter.scale * adapter.rank) for name, adapter in adapters.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {name: value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {name: value for name, value in alphas.items() if value != alpha},
        "target_modules": list(adapters),
        "lora_dropout": max(adapter.dropout.p for adapter in adapters.values()),
        "use_dora": any(isinstance(adapter, DoRALinear) for adapter in adapters.values()),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "task_type": None,
    }


def _round_if_integer(alpha: float) -> int | float:
    return round(alpha) if math.isclose(alpha, round(alpha)) else alpha


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CourseError(f"{file} cannot be read ({error}); expected a folder with {CONFIG} and {WEIGHTS}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else config
        raise CourseError(f"{file} describes adapters of type {kind!r}; supported is 'LORA', with or without use_dora")
    supported = {
        "bias": ("none",),
        "init_lora_weights": PLAIN_INITIALIZATIONS,
        "lora_bias": (False,),
        "fan_in_fan_out": (False,),
    }
    for key, value in config.items():
        if key in READ | IGNORED or not value:
            continue
        if value not in supported.get(key, ()):
            raise CourseError(
                f"{file}: {key} is {value!r}, which changes the meaning of the adapters and is not supported"
            )
    return config


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(file.read_bytes())
    except FileNotFoundError:
        raise CourseError(f"{file} does not exist; expected a folder with {CONFIG} and {WEIGHTS}") from None
    except (OSError, SafetensorError) as error:
        raise CourseError(f"{file} is not a complete safetensors file ({error}); download or save it again") from error


def _by_layer(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Group the tensors by adapted layer; a name of another form becomes a layer of its own, which matches none."""
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(rf"{re.escape(PREFIX)}(.+)\.({DOWN}|{UP}|{MAGNITUDE})", name)
        layer, part = match.groups() if match else (name, "")
        layers.setdefault(layer, {})[part] = tensor
    return layers


def _problem(
    base: nn.Linear | QuantizedLinear, published: str, parts: dict[str, Tensor], config: dict[str, Any]
) -> str | None:
    """Return what is wrong with a layer's tensors, or None. The rank is that of the tensors, not of the config."""
    rank: int | str = len(parts[DOWN]) if DOWN in parts and parts[DOWN].ndim == 2 else "rank"
    expected: dict[str, tuple[int | str, ...]] = {DOWN: (rank, base.in_features), UP: (base.out_features, rank)}
    if config.get("use_dora"):
        expected[MAGNITUDE] = (base.out_features,)
    shapes = {part: tuple(parts[part].shape) for part in sorted(parts)}
    return None if shapes == expected else f"{published}: has shapes {shapes}, expected {expected}"


def _adapter(
    base: nn.Linear | QuantizedLinear, published: str, parts: dict[str, Tensor], config: dict[str, Any]
) -> LoRALinear:
    rank, alpha = len(parts[DOWN]), _alpha(config, published)
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    adapter = (DoRALinear if config.get("use_dora") else LoRALinear)(
        base, rank, scale, config.get("lora_dropout") or 0.0
    )
    with torch.no_grad():
        for part, tensor in _tensors(adapter).items():
            tensor.copy_(parts[part])
    return adapter


def _alpha(config: dict[str, Any], layer: str) -> float:
    """Return a layer's own alpha if a pattern matches it, else the one for all layers (8 if the config has none)."""
    for pattern, alpha in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", layer):
            return alpha
    return config.get("lora_alpha", 8)
