"""Load a model's weights from a published folder, and save a model as one."""

import errno
import json
from collections.abc import Collection, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from shared.atomic import atomic_file, write_atomically
from shared.errors import CourseError
from shared.pretrained.checkpoint import CONFIG, WEIGHTS, Checkpoint
from shared.pretrained.weight_names import Match, WeightNames

WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""The names that torch.compile, DistributedDataParallel, FSDP and activation checkpointing put before a model's own."""


def named_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and saved buffer by name; a tied tensor is listed under its first name only."""
    weights: dict[str, Tensor] = {}
    seen_ids: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen_ids:
            weights[name] = tensor
            seen_ids.add(id(tensor))
    return weights


def load_weights(model: nn.Module, folder: Path | str, names: WeightNames) -> None:
    """Copy the folder's weights into `model`, each converted to the dtype of the model's own tensor.

    Raises one CourseError that lists every missing, surplus and mis-shaped name, before anything is copied. Where the
    names only contain a part too many, as `module.` from DistributedDataParallel, it states that part instead.
    """
    weights = named_weights(model)
    with Checkpoint(folder) as checkpoint, torch.no_grad():
        matches = names.matches(weights, checkpoint.shapes)
        problems = _problems(matches, weights, checkpoint, names)
        if problems:
            if surplus := _surplus_part(names, weights, checkpoint.shapes):
                raise CourseError(
                    f"the weight names in {folder} contain {surplus!r}, and without it they fit this model: save the "
                    "model inside its wrapper (DistributedDataParallel: model.module, torch.compile: model._orig_mod), "
                    f"or remove {surplus!r} from the names"
                )
            raise CourseError(f"the weights in {folder} do not fit this model:\n  " + "\n  ".join(problems))
        for match in matches:
            tensors = match.rule.to_model([checkpoint[name] for name in match.published])
            for name, tensor in zip(match.model, tensors, strict=True):
                weights[name].copy_(tensor)


def _surplus_part(names: WeightNames, weights: Mapping[str, Tensor], present: Collection[str]) -> str | None:
    """Return the part of the names in a file without which the model's names are found in it, else None.

    It is a prefix of all names, or the name of a wrapper anywhere in them.
    """

    def coverage(present: Collection[str]) -> float:
        published = [name for match in names.matches(weights, present) for name in match.published]
        return sum(name in present for name in published) / max(1, len(published))

    parts_of_names = zip(*(name.split(".")[:-1] for name in present), strict=False)
    common = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, parts_of_names)]
    prefixes = [".".join(common[:count]) + "." for count in range(1, len(common) + 1)]
    scores = {prefix: coverage({name.removeprefix(prefix) for name in present}) for prefix in prefixes}
    for wrapper in WRAPPERS:
        without = {".".join(part for part in name.split(".") if part != wrapper) for name in present}
        scores.setdefault(f"{wrapper}.", coverage(without))
    best = max(scores, key=lambda part: scores[part])
    return best if scores[best] > max(0.5, coverage(present)) else None


def _problems(
    matches: list[Match], weights: Mapping[str, Tensor], checkpoint: Checkpoint, names: WeightNames
) -> list[str]:
    expected: dict[str, Tensor] = {}
    for match in matches:
        # Meta tensors pass through the same rule, and so get the shapes that the file must have.
        tensors = [torch.empty_like(weights[name], device="meta") for name in match.model]
        expected.update(zip(match.published, match.rule.to_published(tensors), strict=True))
    tied: dict[str, list[str]] = {}
    for tie in names.ties:
        tied.setdefault(tie.published, []).append(tie.to)
    shapes = checkpoint.shapes
    problems = [f"missing: {name} {list(expected[name].shape)}" for name in sorted(expected.keys() - shapes.keys())]
    for name in sorted(shapes.keys() - expected.keys()):
        if name in tied:
            problems += [
                f"untied: {name} differs from {to}, which this model shares with it"
                for to in tied[name]
                if to in shapes and not torch.equal(checkpoint[name], checkpoint[to])
            ]
        elif not names.ignores(name):
            problems.append(f"surplus: {name} {list(shapes[name])}")
    for name in sorted(expected.keys() & shapes.keys()):
        if shapes[name] != tuple(expected[name].shape):
            problems.append(f"mis-shaped: {name} is {list(shapes[name])}, expected {list(expected[name].shape)}")
        elif expected[name].is_floating_point() != checkpoint.dtypes[name].startswith(("F", "BF")):
            problems.append(f"mistyped: {name} is {checkpoint.dtypes[name]}, expected {expected[name].dtype}")
    return problems


def save_pretrained(folder: Path | str, model: nn.Module, names: WeightNames, config: Mapping[str, Any]) -> None:
    """Write `model.safetensors` and `config.json` under the published names, each of them atomically.

    The config also states the dtype of the weights, as published ones do.
    Raises CourseError when a file cannot be written (a full disk); a file that was there before stays as it was.
    """
    folder = Path(folder)
    weights = {name: tensor.detach().cpu() for name, tensor in named_weights(model).items()}
    published = {name: tensor.contiguous() for name, tensor in names.to_published(weights).items()}
    with atomic_file(folder / WEIGHTS) as temporary:
        try:
            save_file(published, temporary, metadata={"format": "pt"})
        except SafetensorError as error:  # safetensors hides the system's error number
            full = "No space left" in str(error)
            raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error
    dtype = next((str(tensor.dtype) for tensor in published.values() if tensor.is_floating_point()), "torch.float32")
    settings = {**config, "torch_dtype": dtype.removeprefix("torch.")}
    content = json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomically(folder / CONFIG, content.encode())
