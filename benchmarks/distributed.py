"""The cost of several processes on one machine: steps per second and memory, with DDP and with FSDP.

    python -m benchmarks.distributed

A decoder with ten million weights trains on the same batches of 8 × 32 tokens in 1, 2 and 4 processes. Without a GPU
each process has one thread, and all share the machine's cores: two processes on two cores are hardly faster than one
process with two threads, and four on two cores are slower by their communication. The rows show that cost, and that
FSDP's memory per process falls with their number. With GPUs, each process has its own.

Memory is the peak of the largest process beyond what Python and PyTorch need: weights, gradients, moments (each as
large as the weights, 39 MB) and activations. There is no baseline: the rows are compared with each other.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import torch

from benchmarks.report import Row, print_rows
from shared.distributed.launch import launch

JOB = Path(__file__).with_name("distributed_job.py")
# With this setting the allocator returns larger blocks of memory at once, so that the peak does not include its cache.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536"}


def measure() -> list[Row]:
    """Return rows in steps/s, and in MB per process."""
    rows = []
    gpus = torch.cuda.device_count()
    for processes in (1, 2, 4):
        if gpus and processes > gpus:
            break
        for parallel in ("ddp", "fsdp") if processes > 1 else ("ddp",):
            measured = _run(processes, parallel)
            name = f"{processes} processes, {parallel.upper()}" if processes > 1 else "1 process"
            machine = f"{gpus} GPUs" if gpus else f"one thread each on {os.cpu_count()} cores"
            speed, memory = 1 / measured["seconds"], measured["memory"] / 1e6
            rows += [
                Row.of_rate(f"decoder, {name}, {machine}: speed", speed, None, "steps/s"),
                Row.of_cost(f"decoder, {name}, {machine}: memory per process", memory, None, "MB"),
            ]
    return rows


def _run(processes: int, parallel: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "measured.json"
        result = launch(processes, JOB, parallel, str(output), seconds=600, environment=ENVIRONMENT)
        if result.returncode:
            raise subprocess.CalledProcessError(result.returncode, result.args, result.stdout, result.stderr)
        return json.loads(output.read_text())


if __name__ == "__main__":
    print_rows(measure())
