"""Every source of chance that a training step may draw from: set, read and put back."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


def seed_everything(seed: int, *, process: int = 0) -> None:
    """Set all sources. Processes draw apart from each other, or their rows would share one dropout mask; the first
    draws as a process alone does."""
    if process:
        seed = int(np.random.SeedSequence([seed, process]).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 – augmentation of others may draw from it
    torch.manual_seed(seed)  # every device's generator too


def random_tensors(device: torch.device) -> dict[str, Tensor]:
    """Return the states of PyTorch's generators: the CPU's, and that of `device` where it has its own."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states["device"] = torch.get_device_module(device).get_rng_state().cpu()
    return states


def random_numbers() -> dict[str, list]:
    """Return the states of Python's and NumPy's generators, as plain lists."""
    version, words, spare = random.getstate()
    name, keys, place, has_spare, spare_normal = np.random.get_state()  # noqa: NPY002
    return {
        "python": [version, list(words), spare],
        "numpy": [name, keys.tolist(), place, has_spare, spare_normal],
    }


def restore_random(tensors: dict[str, Tensor], numbers: dict[str, list], device: torch.device) -> None:
    """Put back what `random_tensors` and `random_numbers` returned."""
    version, words, spare = numbers["python"]
    random.setstate((version, tuple(words), spare))
    name, keys, *rest = numbers["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(tensors["cpu"])
    if "device" in tensors and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(tensors["device"])


@contextlib.contextmanager
def chance_undisturbed(device: torch.device) -> Iterator[None]:
    """On leaving, every source goes on as if nothing had been drawn within this context."""
    tensors, numbers = random_tensors(device), random_numbers()
    try:
        yield
    finally:
        restore_random(tensors, numbers, device)
