"""A run whose loss or gradient is no longer a number: stop, keep the evidence, name the first suspect."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from shared.atomic import write_atomically
from shared.distributed import gather_values, is_main
from shared.errors import CourseError
from shared.training.checkpoint import TrainingState
from shared.training.dtensor import own_share
from shared.training.saving import Saver


class NotFinite(CourseError):
    """The loss or a gradient became NaN or infinite."""


def not_finite(
    state: TrainingState, losses: list[float], batch_at: Callable[[int], Any], first_batch: int, folder: Path | None
) -> NotFinite:
    """Return the error to raise, after saving the state before the bad update and the batch that led to it.

    They lie in folder/not-finite/. The batch is the first one of the step with a bad loss, or the step's first.
    """
    place = next((i for i, loss in enumerate(losses) if not np.isfinite(loss)), 0)
    batch = batch_at(first_batch + place)
    message = f"training stopped at step {state.step + 1}: the loss is {losses[place]:g}. {_suspect(state, batch)}."
    if folder is not None:
        evidence = folder / "not-finite"
        keep_evidence(evidence, state, batch)
        message += f" The batch (number {first_batch + place}) and the state before this step are in {evidence}."
    return NotFinite(message + " Usual causes: too high a learning rate, log or division by zero, a bad sample")


def keep_evidence(folder: Path, state: TrainingState, batch: Any) -> None:
    """Write a state and a batch to `folder`, for whoever wants to find out what went wrong."""
    if is_main():
        write_atomically(folder / "batch.safetensors", _batch_as_safetensors(batch))
    saver = Saver(folder)
    saver.save(state)
    saver.wait()


def _suspect(state: TrainingState, batch: Any) -> str:
    named = dict(state.model.named_parameters())
    if name := _first_not_finite(named):
        return f"The parameter {name} is not finite already before the step"
    for name, tensor in _leaves(batch):
        if isinstance(tensor, Tensor) and not bool(torch.isfinite(tensor).all()):
            return f"The batch itself is not finite, at {name}"
    if name := _first_not_finite({name: parameter.grad for name, parameter in named.items()}):
        return f"Parameters and batch are finite; the first gradient that is not is that of {name}"
    return "Parameters, batch and every single gradient are finite: look at the loss function"


def _first_not_finite(named: dict[str, Tensor | None]) -> str | None:
    """The name of the first tensor with a number that is none, in the share of whichever process."""
    mine = [
        name for name, tensor in named.items() if tensor is not None and not torch.isfinite(own_share(tensor)).all()
    ]
    found = {name for names in gather_values(mine) for name in names}
    return next((name for name in named if name in found), None)


def _batch_as_safetensors(batch: Any) -> bytes:
    leaves = list(_leaves(batch))
    tensors = {name: leaf.detach().cpu().contiguous().clone() for name, leaf in leaves if isinstance(leaf, Tensor)}
    others = {name: repr(leaf) for name, leaf in leaves if not isinstance(leaf, Tensor)}
    return safetensors.torch.save(tensors, metadata={"others": json.dumps(others)})


def _leaves(batch: Any, name: str = "batch") -> Iterator[tuple[str, Any]]:
    """Walk through nested tuples, lists and dictionaries: batch.0, batch.images, …"""
    if isinstance(batch, dict):
        for key, value in batch.items():
            yield from _leaves(value, f"{name}.{key}")
    elif isinstance(batch, tuple | list):
        for place, value in enumerate(batch):
            yield from _leaves(value, f"{name}.{place}")
    elif isinstance(batch, np.ndarray):
        yield name, torch.as_tensor(batch)
    else:
        yield name, batch
