"""The random generators that a training step may draw from: seed, read and restore them."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


def seed_everything(seed: int, *, process: int = 0) -> None:
    """Seed the generators of Python, NumPy and PyTorch.

    Each process gets its own stream, so that they do not share one dropout mask. Process 0 gets the same stream
    as a run with a single process.
    """
    if process:
        seed = int(np.random.SeedSequence([seed, process]).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 – third-party augmentation may draw from it
    torch.manual_seed(seed)  # seeds every device's generator too


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """Return the states of PyTorch's generators: the CPU's, and that of `device` if it has its own."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states["device"] = torch.get_device_module(device).get_rng_state().cpu()
    return states


def python_random_states() -> dict[str, list]:
    """Return the states of Python's and NumPy's generators, as lists that JSON can hold."""
    version, words, spare = random.getstate()
    name, keys, position, has_spare, spare_normal = np.random.get_state()  # noqa: NPY002
    return {
        "python": [version, list(words), spare],
        "numpy": [name, keys.tolist(), position, has_spare, spare_normal],  # type: ignore[attr-defined]
    }


def restore_random_states(generators: dict[str, Tensor], python_states: dict[str, list], device: torch.device) -> None:
    """Restore what `generator_states` and `python_random_states` returned."""
    version, words, spare = python_states["python"]
    random.setstate((version, tuple(words), spare))
    name, keys, *rest = python_states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(generators["cpu"])
    if "device" in generators and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(generators["device"])


@contextlib.contextmanager
def preserve_random_states(device: torch.device) -> Iterator[None]:
    """Restore all generators on leaving this context, as if nothing had been drawn in it."""
    generators, python_states = generator_states(device), python_random_states()
    try:
        yield
    finally:
        restore_random_states(generators, python_states, device)
