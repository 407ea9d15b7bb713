"""The device that a command names, checked before anything is computed on it."""

import torch

from shared.errors import CourseError


def parse_device(name: str | torch.device) -> torch.device:
    """Return the torch device called `name`, whether or not this machine has it. Raises CourseError for other names."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "meta":  # it has no memory for weights
        raise CourseError(f"{str(name)!r} is no device; expected cpu, cuda, cuda:1 or mps")
    return device


def usable_device(name: str | torch.device) -> torch.device:
    """Return the torch device called `name`. Raises CourseError when this machine has no such device."""
    device = parse_device(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        available = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "only cpu"
        raise CourseError(f"device {str(name)!r} was requested, but this machine has {available}; use that") from error
    return device
