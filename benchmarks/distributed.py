"""What several processes cost on one machine: steps a second and memory, with DDP and with FSDP.

    python -m benchmarks.distributed

A decoder of ten million weights takes the same batches of 8 × 32 tokens in 1, 2 and 4 processes. Without a GPU each process
has one thread, and all share this machine's cores: two processes on two cores can't be much faster than PyTorch's one
process with two threads would be, and four on two cores are slower by what they say to each other. What the numbers show is
that cost, and that FSDP's share of the memory shrinks as there are more. With GPUs each process has one of its own.

Memory is the most that the training of the largest process took beyond Python and PyTorch themselves: weights, gradients,
moments (each as large as the weights: 39 MB) and activations.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import torch

from shared.distributed.launch import launch

JOB = Path(__file__).with_name("distributed_job.py")
# The allocator gives every larger piece of memory back at once; else the peak would be that of its hoard.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536"}


def measure() -> list[dict]:
    """Rows of name, ours (steps/s, or MB per process) and unit. There is no rival: what compares are the rows."""
    rows = []
    gpus = torch.cuda.device_count()
    for processes in (1, 2, 4):
        if gpus and processes > gpus:
            break
        for parallel in ("ddp", "fsdp") if processes > 1 else ("ddp",):
            measured = _run(processes, parallel)
            name = f"{processes} processes, {parallel.upper()}" if processes > 1 else "1 process"
            where = f"{gpus} GPUs" if gpus else f"one thread each on {os.cpu_count()} cores"
            rows += [
                _row(f"decoder, {name}, {where}: speed", 1 / measured["seconds"], "steps/s"),
                _row(f"decoder, {name}, {where}: memory of a process", measured["memory"] / 1e6, "MB"),
            ]
    return rows


def _row(name: str, ours: float, unit: str) -> dict:
    return {"name": name, "ours": ours, "theirs": None, "ratio": None, "unit": unit}


def _run(processes: int, parallel: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "measured.json"
        done = launch(processes, JOB, parallel, str(out), seconds=600, environment=ENVIRONMENT)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
        return json.loads(out.read_text())


if __name__ == "__main__":
    for row in measure():
        print(f"{row['name']:<70} {row['ours']:9.2f} {row['unit']}", flush=True)
