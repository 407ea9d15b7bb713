"""How much memory a run takes: the figure that decides whether it fits."""

import resource
import sys
from pathlib import Path

import torch


def peak_memory(device: torch.device) -> int:
    """The most bytes that this run has held so far: on its GPU, where it has one, or else in its process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_process_memory()


def peak_process_memory() -> int:
    """The most bytes of main memory that this process has held so far."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # On Linux that figure would take in what the parent held when it started us; this one doesn't.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
