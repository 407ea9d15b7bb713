"""The device that a command names, checked before anything is computed on it."""

from typing import Literal

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


def fastest_precision(device: str | torch.device = "cpu") -> Literal["float32", "bfloat16"]:
    """Return the faster precision of matrix products on a device: bfloat16 where its instructions exist, else float32.

    Processors without such instructions (AVX-512 BF16 or AMX) emulate bfloat16 and take several times as long.
    """
    if torch.device(device).type == "cuda":
        return "bfloat16"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"
