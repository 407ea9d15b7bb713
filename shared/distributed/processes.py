"""This process's place among those that `torchrun` has started.

`torchrun` starts the same program several times. It sets environment variables in each process: how many there are
(WORLD_SIZE), which one it is (RANK, and LOCAL_RANK on its machine) and the address of the first one (MASTER_ADDR,
MASTER_PORT). Without torchrun a program is the only process, and nothing here has an effect.
"""

import atexit
import os
import platform
from datetime import timedelta

import torch
from torch import distributed

from shared.devices import parse_device
from shared.errors import CourseError

TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def join(device: str | torch.device = "cpu", *, timeout: timedelta = timedelta(minutes=10)) -> torch.device:
    """Join the group of processes that `torchrun` has started, and return the device of this one.

    With "cuda" each process of a machine gets its own GPU: the one whose index is its LOCAL_RANK. CUDA tensors are
    sent through NCCL, CPU tensors through gloo. `timeout` is how long a collective waits for a missing process.
    Calling this again, or without torchrun, changes nothing.

    Raises CourseError when torchrun's environment is incomplete, the machine has too few GPUs,
    or the device's name is unknown.
    """
    device = parse_device(device)
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    if missing := [name for name in TORCHRUN_VARIABLES if name not in os.environ]:
        raise CourseError(
            f"RANK is set but not {', '.join(missing)}: start the processes with torchrun, "
            "or unset RANK for a single process"
        )
    if device.type == "cuda":
        device = _local_gpu(int(os.environ["LOCAL_RANK"]))
    if distributed.is_initialized():
        return device
    if os.environ["LOCAL_WORLD_SIZE"] == os.environ["WORLD_SIZE"]:
        # All on this machine: gloo need not search for the interface that its host name belongs to.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if platform.system() == "Darwin" else "lo")
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=timeout)
    atexit.register(leave)
    return device


def leave() -> None:
    """Leave the group of processes. This also happens automatically when the program ends."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """Return the index of this process, counted from 0 over all machines."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes on all machines."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_main() -> bool:
    """Return whether this is the process with rank 0, which prints and writes what is written once."""
    return rank() == 0


def _local_gpu(index: int) -> torch.device:
    if index >= torch.cuda.device_count():
        raise CourseError(
            f"process {index} of this machine finds {torch.cuda.device_count()} GPUs; "
            "start at most as many processes as there are GPUs (torchrun --nproc-per-node)"
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)
