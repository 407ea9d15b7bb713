"""Who am I among the processes that `torchrun` has started?

`torchrun` starts the same program several times and tells each copy, in its environment, how many there are
(WORLD_SIZE), which one it is (RANK, and LOCAL_RANK among those on the same machine) and where the first one listens
(MASTER_ADDR, MASTER_PORT). A program started without it is the only process there is, and nothing here does anything.
"""

import atexit
import os
import platform
from datetime import timedelta

import torch
from torch import distributed

from shared.errors import CourseError

TOLD_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def join(device: str | torch.device = "cpu", *, timeout: timedelta = timedelta(minutes=10)) -> torch.device:
    """Meet the other processes that `torchrun` has started, and return the device of this one.

    With "cuda" each process of a machine gets a GPU of its own: the one whose number is its LOCAL_RANK. GPUs talk
    through NCCL, CPU tensors through gloo. `timeout` is how long a collective waits for a process that doesn't come.
    Joining again, or without torchrun, changes nothing.

    Raises CourseError when torchrun's environment is incomplete, or the machine has too few GPUs.
    """
    device = torch.device(device)
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    if missing := [name for name in TOLD_BY_TORCHRUN if name not in os.environ]:
        raise CourseError(
            f"RANK is set but not {', '.join(missing)}: start the processes with torchrun, or unset RANK for one process"
        )
    if device.type == "cuda":
        device = _own_gpu(int(os.environ["LOCAL_RANK"]))
    if distributed.is_initialized():
        return device
    if os.environ["LOCAL_WORLD_SIZE"] == os.environ["WORLD_SIZE"]:
        # All on this machine: gloo need not find out which of its network's names leads back to itself.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if platform.system() == "Darwin" else "lo")
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=timeout)
    atexit.register(leave)
    return device


def leave() -> None:
    """Leave the group of processes. Done by itself when the program ends."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """The number of this process, counted from 0 over all machines."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes there are, over all machines."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_main() -> bool:
    """Whether this is the one process that prints, and writes what is written once."""
    return rank() == 0


def _own_gpu(number: int) -> torch.device:
    if number >= torch.cuda.device_count():
        raise CourseError(
            f"process {number} of this machine finds {torch.cuda.device_count()} GPUs; "
            "start at most as many processes as there are GPUs (torchrun --nproc-per-node)"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)
