"""Batches as a pure function of their number, so that a run can go on anywhere."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Batches:
    """Shuffled batches of one or more arrays that have a sample in every row.

    `batches(number)` is a pure function: the number gives the epoch, and (seed, epoch) its order. No sample comes
    twice in an epoch; the few that don't fill a last batch sit that epoch out. One array gives a tensor,
    several give a tuple. `augment(batch, generator)` may change a batch, drawing from a generator that is seeded with
    (seed, number), so that augmentation is as repeatable as the order.

    Raises ValueError when the arrays differ in length or don't fill a single batch.
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
            raise ValueError(f"arrays with a sample in every row must be equally long; these have {lengths} rows")
        if not 1 <= batch_size <= lengths[0]:
            raise ValueError(f"cannot fill batches of {batch_size} from {lengths[0]} samples; choose 1 to {lengths[0]}")
        self.arrays = [torch.as_tensor(array) for array in arrays]
        self.batch_size, self.seed, self.augment = batch_size, seed, augment
        self.per_epoch = lengths[0] // batch_size
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def __call__(self, number: int) -> Any:
        epoch, place = divmod(number, self.per_epoch)
        rows = self.order(epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        batch = tuple(array[rows.to(array.device)] for array in self.arrays)
        batch = batch if len(batch) > 1 else batch[0]
        if self.augment is None:
            return batch
        generator = torch.Generator(self.arrays[0].device)
        # NumPy's seed sequence mixes (seed, number) well; 1 keeps this stream apart from the one that shuffles.
        generator.manual_seed(int(np.random.SeedSequence([self.seed, number, 1]).generate_state(1, np.uint64)[0] >> 1))
        return self.augment(batch, generator)

    def order(self, epoch: int) -> Tensor:
        """Return the rows in the order in which `epoch` visits them."""
        if epoch != self._epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.arrays[0]))
            self._epoch, self._order = epoch, torch.from_numpy(order)
        return self._order


def share_of(batch: Any, process: int, processes: int) -> Any:
    """Return the rows of `batch` that belong to one of several processes: equally many for each, in order.

    Every tensor and array is cut, however nested, and so is a list without tensors in it, with one entry a sample.
    Single numbers and tensors without axes belong to all. Means over equal shares average to the mean over the batch.

    Raises ValueError when the rows don't divide evenly, or tensors differ in length so that rows are no samples.
    """
    if processes == 1:
        return batch
    lengths = sorted({len(leaf) for leaf in _rows_in(batch)})
    if len(lengths) != 1:
        found = f"tensors of {' and '.join(map(str, lengths))} rows" if lengths else "no tensor"
        raise ValueError(f"cannot tell what a sample is in a batch with {found}; give every tensor one row a sample")
    if lengths[0] % processes:
        raise ValueError(
            f"a batch of {lengths[0]} rows does not divide among {processes} processes; make it a multiple of {processes}"
        )
    rows = lengths[0] // processes
    return _cut(batch, slice(process * rows, (process + 1) * rows))


def _rows_in(batch: Any) -> Iterator[Any]:
    """Every part of a batch that has a row for each sample."""
    if isinstance(batch, Tensor | np.ndarray):
        if batch.ndim:
            yield batch
    elif isinstance(batch, dict):
        for value in batch.values():
            yield from _rows_in(value)
    elif isinstance(batch, tuple | list):
        inner = [rows for value in batch for rows in _rows_in(value)]
        yield from inner or ([batch] if batch else [])


def _cut(batch: Any, rows: slice) -> Any:
    if isinstance(batch, Tensor | np.ndarray):
        return batch[rows] if batch.ndim else batch
    if isinstance(batch, dict):
        return {key: _cut(value, rows) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        if not any(True for value in batch for _ in _rows_in(value)):
            return batch[rows]
        values = [_cut(value, rows) for value in batch]
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
