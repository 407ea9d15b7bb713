"""A model's weights from a published folder, and back into one."""

import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from shared.errors import CourseError
from shared.pretrained.checkpoint import CONFIG, WEIGHTS, Checkpoint
from shared.pretrained.weight_names import Match, Table


def named_weights(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and saved buffer by name; one that is tied to another stands under its first name only."""
    weights, seen = {}, set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            weights[name] = tensor
            seen.add(id(tensor))
    return weights


def load_weights(model: nn.Module, folder: Path | str, table: Table) -> None:
    """Copy the folder's weights into `model`, each in the precision that the model's own tensor has.

    Raises one CourseError that lists every missing, surplus and mis-shaped name, before anything is copied.
    """
    weights = named_weights(model)
    with Checkpoint(folder) as checkpoint, torch.no_grad():
        matches = table.matches(weights, checkpoint.shapes)
        problems = _problems(matches, weights, checkpoint, table)
        if problems:
            raise CourseError(f"the weights in {folder} do not fit this model:\n  " + "\n  ".join(problems))
        for match in matches:
            ours = match.rule.to_ours([checkpoint[name] for name in match.public])
            for name, tensor in zip(match.ours, ours, strict=True):
                weights[name].copy_(tensor)


def _problems(matches: list[Match], weights: Mapping[str, Tensor], checkpoint: Checkpoint, table: Table) -> list[str]:
    expected: dict[str, Tensor] = {}
    for match in matches:
        # Tensors without data go through the same rule: they arrive with the shapes that the file must have.
        ours = [torch.empty_like(weights[name], device="meta") for name in match.ours]
        expected.update(zip(match.public, match.rule.to_public(ours), strict=True))
    tied = {tie.public: tie.to for tie in table.ties}
    shapes = checkpoint.shapes
    problems = [f"missing: {name} {list(expected[name].shape)}" for name in sorted(expected.keys() - shapes.keys())]
    for name in sorted(shapes.keys() - expected.keys()):
        if name in tied:
            if tied[name] in shapes and not torch.equal(checkpoint[name], checkpoint[tied[name]]):
                problems.append(f"untied: {name} differs from {tied[name]}, which this model shares with it")
        elif not table.ignores(name):
            problems.append(f"surplus: {name} {list(shapes[name])}")
    for name in sorted(expected.keys() & shapes.keys()):
        if shapes[name] != tuple(expected[name].shape):
            problems.append(f"mis-shaped: {name} is {list(shapes[name])}, expected {list(expected[name].shape)}")
        elif expected[name].is_floating_point() != checkpoint.kinds[name].startswith(("F", "BF")):
            problems.append(f"mistyped: {name} is {checkpoint.kinds[name]}, expected {expected[name].dtype}")
    return problems


def save_pretrained(folder: Path | str, model: nn.Module, table: Table, config: Mapping[str, Any]) -> None:
    """Write `model.safetensors` and `config.json` under the published names, each whole or not at all.

    The config also tells the precision of the weights, as published ones do.
    Raises CourseError when they cannot be written (a full disk); a file that was there before then stays as it was.
    """
    folder = Path(folder)
    public = {name: tensor.contiguous() for name, tensor in table.to_public(_detached(model)).items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CourseError(f"{folder} cannot be made ({error.strerror}); choose another folder") from error
    _write_whole(folder / WEIGHTS, lambda file: save_file(public, file, metadata={"format": "pt"}))
    precision = next((str(tensor.dtype) for tensor in public.values() if tensor.is_floating_point()), "torch.float32")
    settings = {**config, "torch_dtype": precision.removeprefix("torch.")}
    settings = json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    _write_whole(folder / CONFIG, lambda file: file.write_text(settings, encoding="utf-8"))


def _detached(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in named_weights(model).items()}


def _write_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Write beside `file`, down to the disk, and only then take its name."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        partial.touch()
        readers = partial.stat().st_mode
        write(partial)
        partial.chmod(readers)  # safetensors writes for its owner's eyes alone
        with open(partial, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(partial, file)
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        cause = "the disk is full" if full else str(error)
        advice = "free some space or choose another folder" if full else "choose another folder"
        raise CourseError(f"{file} could not be written: {cause}; {advice} (nothing that was there is lost)") from error
    finally:
        partial.unlink(missing_ok=True)
