"""Adapters on disk, in the layout of the PEFT library: `adapter_config.json` and `adapter_model.safetensors`.

The adapters alone are saved, a few megabytes beside a model of gigabytes, under the names of the *published* model:
what was trained here loads there, and back.
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
from shared.finetuning.adapters import find_adapters, find_linears, replace
from shared.finetuning.lora import DoRALinear, LoRALinear
from shared.finetuning.quantized_linear import QuantizedLinear
from shared.pretrained import Rename, WeightNames

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
DOWN, UP, MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"
# What a config may hold without changing what the weights beside it mean.
UNDERSTOOD = {"peft_type", "r", "lora_alpha", "lora_dropout", "use_dora", "use_rslora", "rank_pattern", "alpha_pattern"}
WITHOUT_MEANING = {
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
    "target_modules",  # the weights' names say which
    "task_type",
}
# Ways to draw the first corrections that leave the base as it is; PiSSA, OLoRA and others take something off it.
PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")


def save_adapters(
    folder: Path | str, model: nn.Module, table: WeightNames | None = None, *, base_model: str | None = None
) -> None:
    """Write the model's adapters to `folder`.

    table       the names of the published model; without it the layers keep ours
    base_model  name or folder of the published model that they belong to, noted for whoever loads them

    Raises ValueError when there are none, and CourseError when a layer is only a part of a published one (a query inside
    a fused qkv), or the disk refuses.
    """
    adapters = find_adapters(model)
    if not adapters:
        raise ValueError("the model has no adapters to save; add_adapters first")
    public = _public_names(model, table)
    fused = [name for name in adapters if name not in public]
    if fused:
        raise CourseError(
            f"{', '.join(fused[:8])}: only parts of a published layer, which has adapters as a whole only"
        )
    tensors = {}
    for name, adapter in adapters.items():
        for key, tensor in _tensors(adapter).items():
            tensors[f"{PREFIX}{public[name]}.{key}"] = tensor.detach().cpu().contiguous()
    config = _config({public[name]: adapter for name, adapter in adapters.items()}, base_model)
    folder = Path(folder)
    write_atomically(folder / WEIGHTS, safetensors.torch.save(tensors, metadata={"format": "pt"}))
    write_atomically(folder / CONFIG, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())


def load_adapters(folder: Path | str, model: nn.Module, table: WeightNames | None = None) -> tuple[str, ...]:
    """Put the adapters in `folder` on `model`, freeze all else, and return the adapted layers' names.

    Raises ValueError when the model has adapters already, and CourseError when the folder holds no whole adapters, they
    are of a kind that these layers can't be, or one has no layer of its name and shape; nothing is changed then.
    """
    if find_adapters(model):
        raise ValueError("the model has adapters already; merge_and_remove_adapters or remove_adapters first")
    folder = Path(folder)
    config, tensors = _read_config(folder / CONFIG), _read_tensors(folder / WEIGHTS)
    ours = {public: name for name, public in _public_names(model, table).items()}
    linears, layers = find_linears(model), _by_layer(tensors)
    problems = [
        f"{public}: the model has no linear layer of this name" if public not in ours else problem
        for public, parts in layers.items()
        if public not in ours or (problem := _problem(linears[ours[public]], public, parts, config))
    ]
    if problems:
        raise CourseError(f"the adapters in {folder} do not fit this model:\n  " + "\n  ".join(problems))
    model.requires_grad_(False)
    for public, parts in layers.items():
        replace(model, ours[public], _adapter(linears[ours[public]], public, parts, config))
    return tuple(ours[public] for public in layers)


def _tensors(adapter: LoRALinear) -> dict[str, Tensor]:
    tensors = {DOWN: adapter.lora_down.weight, UP: adapter.lora_up.weight}
    return tensors | ({MAGNITUDE: adapter.magnitude} if isinstance(adapter, DoRALinear) else {})


def _public_names(model: nn.Module, table: WeightNames | None) -> dict[str, str]:
    """What the published model calls each linear layer; layers that are parts of a published one are left out."""
    linears = find_linears(model)
    if table is None:
        return {name: name for name in linears}
    # Tensors without data: a table looks at names, and at shapes at most.
    weights = {
        f"{name}.weight": torch.empty(l.out_features, l.in_features, device="meta") for name, l in linears.items()
    }
    public = {}
    for match in table.matches(weights):
        if isinstance(match.rule, Rename) and match.rule.shape is None:
            public[match.model[0].removesuffix(".weight")] = match.published[0].removesuffix(".weight")
    return public


def _config(adapters: dict[str, LoRALinear], base_model: str | None) -> dict[str, Any]:
    """One rank and alpha for all, those of most layers, and a pattern for each layer that differs."""
    ranks = {name: adapter.rank for name, adapter in adapters.items()}
    alphas = {name: _tidy(adapter.scale * adapter.rank) for name, adapter in adapters.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {name: own for name, own in ranks.items() if own != rank},
        "alpha_pattern": {name: own for name, own in alphas.items() if own != alpha},
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


def _tidy(alpha: float) -> int | float:
    return round(alpha) if math.isclose(alpha, round(alpha)) else alpha


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CourseError(f"{file} cannot be read ({error}); expected a folder with {CONFIG} and {WEIGHTS}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else config
        raise CourseError(f"{file} tells of adapters of type {kind!r}; supported is 'LORA', with or without use_dora")
    harmless = {"bias": ("none",), "init_lora_weights": PLAIN_STARTS, "lora_bias": (False,), "fan_in_fan_out": (False,)}
    for key, value in config.items():
        if key in UNDERSTOOD | WITHOUT_MEANING or not value:
            continue
        if value not in harmless.get(key, ()):
            raise CourseError(f"{file}: {key} is {value!r}, which changes what the adapters mean and is not supported")
    return config


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(file.read_bytes())
    except FileNotFoundError:
        raise CourseError(f"{file} does not exist; expected a folder with {CONFIG} and {WEIGHTS}") from None
    except (OSError, SafetensorError) as error:
        raise CourseError(f"{file} is not a whole safetensors file ({error}); download or save it again") from error


def _by_layer(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Each adapted layer's tensors by what they are; a name of any other kind makes a layer of its own, which fits none."""
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found = re.fullmatch(rf"{re.escape(PREFIX)}(.+)\.({DOWN}|{UP}|{MAGNITUDE})", name)
        layer, part = found.groups() if found else (name, "")
        layers.setdefault(layer, {})[part] = tensor
    return layers


def _problem(
    base: nn.Linear | QuantizedLinear, public: str, parts: dict[str, Tensor], config: dict[str, Any]
) -> str | None:
    """What is wrong with a layer's tensors, if anything is. Its rank is that of its tensors, whatever the config says."""
    rank = len(parts[DOWN]) if DOWN in parts and parts[DOWN].ndim == 2 else "rank"
    expected = {DOWN: (rank, base.in_features), UP: (base.out_features, rank)}
    expected |= {MAGNITUDE: (base.out_features,)} if config.get("use_dora") else {}
    found = {part: tuple(parts[part].shape) for part in sorted(parts)}
    return None if found == expected else f"{public}: found {found}, expected {expected}"


def _adapter(
    base: nn.Linear | QuantizedLinear, public: str, parts: dict[str, Tensor], config: dict[str, Any]
) -> LoRALinear:
    rank, alpha = len(parts[DOWN]), _alpha(config, public)
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    adapter = (DoRALinear if config.get("use_dora") else LoRALinear)(
        base, rank, scale, config.get("lora_dropout") or 0.0
    )
    with torch.no_grad():
        for part, tensor in _tensors(adapter).items():
            tensor.copy_(parts[part])
    return adapter


def _alpha(config: dict[str, Any], layer: str) -> float:
    """A layer's own alpha where a pattern names it, else the one for all (8, where a config says nothing)."""
    for pattern, alpha in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", layer):
            return alpha
    return config.get("lora_alpha", 8)
