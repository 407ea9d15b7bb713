"""The functions that the jobs of test_jobs.py call by name in their own processes."""

import time

import torch
from torch import nn

from shared.course.context import RunContext
from shared.errors import CourseError
from shared.training import Batches, TrainingConfig, train

CONTEXT_ARGUMENTS = {"seed": 0, "data": "none", "device": "cpu"}
"""The arguments of a job that become its RunContext."""


def add(context: RunContext, *, first: int, second: int) -> dict:
    (context.folder / "calls").open("a").write("x")
    return {"sum": first + second, "threads": torch.get_num_threads(), "resumed": context.resume}


def fail_with_an_error(context: RunContext) -> dict:
    raise CourseError("no such flavor: vanilla; choose chocolate")


def fail_with_a_bug(context: RunContext) -> dict:
    return {"value": [1, 2, 3][7]}


def return_a_tensor(context: RunContext) -> dict:
    return {"value": torch.zeros(2)}


def train_small(context: RunContext, *, steps: int, pause: float) -> dict:
    """Train a small network with dropout; each step takes at least `pause` seconds, to leave time to interrupt it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1))
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        time.sleep(pause)
        return (model(batch) - batch.sum(-1, keepdim=True)).square().mean()

    config = TrainingConfig(steps, 1e-2, ema_decay=0.9, log_every=7, checkpoint_every=1000)
    run = context.run_options(label="")
    result = train(model, Batches(inputs, batch_size=16, seed=0), loss, config, run=run)
    return {"weights": model[0].weight.flatten().tolist(), "lines": len(result.history)}


def add_to_another(context: RunContext, *, other: str, second: int) -> dict:
    return {"sum": context.measurements_of(other)["sum"] + second}
