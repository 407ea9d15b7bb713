"""Batches as a pure function of their index, so that a run can continue from any step; and operations on batches."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from shared.distributed import world_size
from shared.errors import CourseError


class Batches:
    """Return shuffled batches of one or more arrays whose rows are samples.

    `batches(index)` is a pure function: the index determines the epoch, and (seed, epoch) its order. No sample occurs
    twice in an epoch; samples that do not fill the last batch are left out of that epoch. One array gives a tensor,
    several give a tuple. `augment(batch, generator)` may change a batch; its generator is seeded with (seed, index), so
    that augmentation is as repeatable as the order.

    Fewer samples than `batch_size` make smaller batches: all samples in each; with several processes, as many as divide
    evenly among them.

    Raises ValueError when the arrays differ in length or `batch_size` is below 1, and CourseError when there are no
    samples, or fewer than processes.
    """

    def __init__(
        self,
        *arrays: Tensor | np.ndarray,
        batch_size: int,
        seed: int,
        augment: Callable[[Any, torch.Generator], Any] | None = None,
    ):
        lengths = [len(array) for array in arrays]
        if not arrays or len(set(lengths)) > 1:
            raise ValueError(f"arrays must have equally many rows, one per sample; these have {lengths} rows")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; expected 1 or more")
        self.arrays = [torch.as_tensor(array) for array in arrays]
        self.batch_size, self.seed, self.augment = fit_batch_size(batch_size, lengths[0]), seed, augment
        self.per_epoch = lengths[0] // self.batch_size
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def __call__(self, index: int) -> Any:
        epoch, position = divmod(index, self.per_epoch)
        rows = self.order(epoch)[position * self.batch_size : (position + 1) * self.batch_size]
        parts = tuple(array[rows.to(array.device)] for array in self.arrays)
        batch = parts if len(parts) > 1 else parts[0]
        if self.augment is None:
            return batch
        generator = torch.Generator(self.arrays[0].device)
        # NumPy's seed sequence mixes (seed, index) well; the 1 separates this stream from the one that shuffles.
        generator.manual_seed(int(np.random.SeedSequence([self.seed, index, 1]).generate_state(1, np.uint64)[0] >> 1))
        return self.augment(batch, generator)

    def order(self, epoch: int) -> Tensor:
        """Return the indices of all rows in the order of `epoch`."""
        if epoch != self._epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.arrays[0]))
            self._epoch, self._order = epoch, torch.from_numpy(order)
        return self._order


def fit_batch_size(batch_size: int, samples: int) -> int:
    """Return `batch_size`, or where there are fewer samples, their number rounded down to a multiple of the processes.

    Raises CourseError when that is no sample at all.
    """
    if samples >= batch_size:
        return batch_size
    size = samples - samples % world_size()
    if not size:
        raise CourseError(
            f"the training data has {samples:,} samples; at least {world_size():,} are needed, one per process, "
            f"and {batch_size:,} fill a batch: add data"
        )
    return size


def split_batch(batch: Any, process: int, processes: int) -> Any:
    """Return the rows of `batch` that belong to one of several processes: equally many for each, in order.

    Every tensor and array is split, however nested, and so is a list without tensors, with one entry per sample.
    Numbers and tensors without axes go to all. The mean over the processes' means is the mean over the batch.

    Raises ValueError when the rows do not divide evenly, or tensors differ in length so that rows are not samples.
    """
    if processes == 1:
        return batch
    lengths = sorted({len(leaf) for leaf in _leaves_with_rows(batch)})
    if len(lengths) != 1:
        content = f"tensors of {' and '.join(map(str, lengths))} rows" if lengths else "no tensor"
        raise ValueError(f"cannot split a batch into samples: it has {content}; give every tensor one row per sample")
    if lengths[0] % processes:
        raise ValueError(
            f"a batch of {lengths[0]} rows does not divide among {processes} processes; "
            f"make it a multiple of {processes}"
        )
    rows = lengths[0] // processes
    return _slice_rows(batch, slice(process * rows, (process + 1) * rows))


def _leaves_with_rows(batch: Any) -> Iterator[Any]:
    """Yield every part of a batch that has one row per sample."""
    if isinstance(batch, Tensor | np.ndarray):
        if batch.ndim:
            yield batch
    elif isinstance(batch, dict):
        for value in batch.values():
            yield from _leaves_with_rows(value)
    elif isinstance(batch, tuple | list):
        inner = [rows for value in batch for rows in _leaves_with_rows(value)]
        yield from inner or ([batch] if batch else [])


def _slice_rows(batch: Any, rows: slice) -> Any:
    if isinstance(batch, Tensor | np.ndarray):
        return batch[rows] if batch.ndim else batch
    if isinstance(batch, dict):
        return {key: _slice_rows(value, rows) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        if not any(True for value in batch for _ in _leaves_with_rows(value)):
            return batch[rows]
        values = [_slice_rows(value, rows) for value in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)
    return batch


def to_device(batch: Any, device: torch.device) -> Any:
    """Return `batch` with every tensor in it, however nested in tuples, lists and dictionaries, on `device`."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def batch_leaves(batch: Any, name: str = "batch") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested tuples, lists and dictionaries with their names: batch.0, batch.images, …"""
    if isinstance(batch, dict):
        for key, value in batch.items():
            yield from batch_leaves(value, f"{name}.{key}")
    elif isinstance(batch, tuple | list):
        for index, value in enumerate(batch):
            yield from batch_leaves(value, f"{name}.{index}")
    elif isinstance(batch, np.ndarray):
        yield name, torch.as_tensor(batch)
    else:
        yield name, batch


def batch_to_safetensors(batch: Any) -> bytes:
    """Return a batch as the content of a safetensors file; what is not a tensor goes to the header, as text."""
    leaves = list(batch_leaves(batch))
    tensors = {name: leaf.detach().cpu().contiguous().clone() for name, leaf in leaves if isinstance(leaf, Tensor)}
    others = {name: repr(leaf) for name, leaf in leaves if not isinstance(leaf, Tensor)}
    return safetensors.torch.save(tensors, metadata={"others": json.dumps(others)})
