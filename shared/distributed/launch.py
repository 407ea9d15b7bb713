"""Starting several processes on this machine, as `torchrun` does: what tests and benchmarks need.

`launch` is torchrun itself. `launch_function` is for tests: processes that are forked from one that has PyTorch loaded
already, which would take each of them seconds.
"""

import importlib
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from torch.distributed import TCPStore

# What training loads at its first steps.
PRELOADED = (
    "shared.training",
    "torch._dynamo",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "torch.utils.tensorboard",
)


def launch(
    processes: int,
    program: Path | str,
    *arguments: str,
    seconds: float = 120,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess:
    """Run `program` in `processes` processes of one thread each and return how that ended, with what they said.

    With one process the program is started plainly, without torchrun. Raises subprocess.TimeoutExpired after `seconds`.
    """
    start = [sys.executable]
    if processes > 1:
        # --standalone finds a free port by itself, so that two launches never meet.
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    surroundings = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {})
    return subprocess.run(
        [*start, str(program), *arguments],
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def launch_function(
    processes: int, function: Callable[..., None], *arguments: object, seconds: float = 280
) -> subprocess.CompletedProcess:
    """Call `function(*arguments)` in `processes` processes at once; return how that ended, with what they said in `stderr`.

    They find themselves in the environment that torchrun would have made, and as torchrun does, this ends the others
    when one has failed, and returns its status. `function` must be one that a module holds, for it is found by name.
    Raises subprocess.TimeoutExpired, with all of them ended, after `seconds`.
    """
    # macOS does not bear a fork after its libraries have begun to work.
    context = multiprocessing.get_context("spawn" if platform.system() == "Darwin" else "forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    # As torchrun's: a free port, and no process of ours that the others would lose with it.
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    told = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "localhost"}
    told |= {"MASTER_PORT": store.port, "TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}
    told |= {"OMP_NUM_THREADS": 1}
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as said:
        started = []
        for rank in range(processes):
            environment = {name: str(value) for name, value in (told | {"RANK": rank, "LOCAL_RANK": rank}).items()}
            place = function.__module__, function.__qualname__
            started.append(context.Process(target=_work, args=(environment, said.name, place, arguments)))
            started[-1].start()
        try:
            status = _wait_for(started, time.monotonic() + seconds)
        finally:
            for process in started:
                process.kill()
                process.join()
        result = subprocess.CompletedProcess(function.__qualname__, status or 0, "", said.read())
    if status is None:
        raise subprocess.TimeoutExpired(result.args, seconds, stderr=result.stderr)
    return result


def _wait_for(started: list[BaseProcess], deadline: float) -> int | None:
    """The status of the first process that fails, 0 when none does, None when the time is over."""
    running, status = list(started), 0
    while running:
        if not wait([process.sentinel for process in running], max(0.0, deadline - time.monotonic())):
            return None
        for process in [process for process in running if process.exitcode is not None]:
            running.remove(process)
            if process.exitcode and not status:
                status = process.exitcode
                for other in running:
                    other.terminate()
    return status


def _work(environment: dict[str, str], log: str, place: tuple[str, str], arguments: tuple[object, ...]) -> None:
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    module, name = place
    getattr(importlib.import_module(module), name)(*arguments)
