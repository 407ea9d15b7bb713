"""Starts several processes on this machine, as `torchrun` does, for tests and benchmarks.

`launch` uses torchrun itself. `launch_function` is for tests: it forks the processes from one that has already loaded
PyTorch, which saves each of them seconds.
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
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from torch.distributed import TCPStore

# Modules that training loads in its first steps.
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
    """Run `program` in `processes` processes of one thread each and return the result with their output.

    A single process is started directly, without torchrun. Raises subprocess.TimeoutExpired after `seconds`.
    """
    command = [sys.executable]
    if processes > 1:
        # --standalone chooses a free port, so that two launches do not conflict.
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run(
        [*command, str(program), *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {}),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def launch_function(
    processes: int, function: Callable[..., None], *arguments: object, seconds: float = 280
) -> subprocess.CompletedProcess:
    """Call `function(*arguments)` in `processes` processes at once; return the result with their output in `stderr`.

    The processes get the environment that torchrun would set. As torchrun does, this ends the others when one has
    failed, and returns its status. `function` must be a module's attribute, because it is found by its name.
    Raises subprocess.TimeoutExpired after `seconds`, when all processes have been ended.
    """
    context = _multiprocessing_context()
    # Like torchrun's: a free port, in a process that does not end when one of the others does.
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    common = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "localhost"}
    common |= {"MASTER_PORT": store.port, "TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}
    common |= {"OMP_NUM_THREADS": 1}
    name = function.__module__, function.__qualname__
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as output:
        started = []
        for rank in range(processes):
            environment = {key: str(value) for key, value in (common | {"RANK": rank, "LOCAL_RANK": rank}).items()}
            started.append(context.Process(target=_call_in_process, args=(environment, output.name, name, arguments)))
            started[-1].start()
        try:
            status = _wait_for(started, time.monotonic() + seconds)
        finally:
            for process in started:
                process.kill()
                process.join()
        result = subprocess.CompletedProcess(function.__qualname__, status or 0, "", output.read())
    if status is None:
        raise subprocess.TimeoutExpired(result.args, seconds, stderr=result.stderr)
    return result


def _multiprocessing_context() -> ForkServerContext | SpawnContext:
    if platform.system() == "Darwin":  # its system libraries do not support a fork after they have started threads
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def _wait_for(started: list, deadline: float) -> int | None:
    """Return the status of the first process that fails, 0 when none does, None after the deadline."""
    running: list[BaseProcess] = list(started)
    status = 0
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


def _call_in_process(
    environment: dict[str, str], output: str, name: tuple[str, str], arguments: tuple[object, ...]
) -> None:
    os.environ.update(environment)
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    module, function = name
    getattr(importlib.import_module(module), function)(*arguments)
