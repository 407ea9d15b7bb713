"""The small training run that the sweep kills.

It has everything that a run can lose: two optimizers, an average, running statistics, gradient accumulation,
augmentation, dropout, noise from Python's and NumPy's generators, metrics gathered between two lines, evaluations, and
a checkpoint every third step.
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # optimizers load it at their first step, which would cost every process seconds
import torch.utils.tensorboard  # loaded by every run's log
from torch import Tensor, nn

from benchmarks.kill_sweep.faults import FAULTS
from benchmarks.kill_sweep.slow_disk import SlowDisk
from shared.training import Batches, Evaluation, RunOptions, TrainingConfig, train

STEPS = 48
SETTINGS = TrainingConfig(
    STEPS, 1e-2, "muon", warmup_steps=5, accumulate=2, ema_decay=0.9, log_every=4, checkpoint_every=3
)
CHECKPOINTS = STEPS // SETTINGS.checkpoint_every


@dataclass
class Plan:
    """Describe one session of the run.

    resume             whether it continues from the last checkpoint
    seconds_per_write  the time that writing a checkpoint is made to take
    die_at             (one of slow_disk.POINTS, n): die there while writing the n-th checkpoint of the session
    fault              one of faults.FAULTS, to plant in the training loop
    """

    resume: bool = True
    seconds_per_write: float = 0.01
    die_at: tuple[str, int] | None = None
    fault: str | None = None


def run_session(folder: Path, plan: Plan) -> None:
    """Train in `folder` in this process, as `plan` says, with its output in a log beside the folder."""
    torch.set_num_threads(1)
    log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if plan.fault:
        FAULTS[plan.fault]()
    SlowDisk(plan.seconds_per_write, plan.die_at).install()
    train_small(folder, plan.resume)


def train_small(folder: Path, resume: bool, actions: dict[int, Callable[[], None]] | None = None) -> None:
    """Train the small model; `actions` are called in the middle of the steps that are their keys, counted from 1."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 48), nn.BatchNorm1d(48), nn.GELU(), nn.Dropout(0.2), nn.Linear(48, 48))
    model.append(nn.Linear(48, 1))
    inputs = torch.randn(160, 6, generator=torch.Generator().manual_seed(1))
    batches = Batches(inputs, batch_size=16, seed=2, augment=_add_noise)

    def batch_at(index: int) -> Tensor:
        action = (actions or {}).get(index // SETTINGS.accumulate + 1)
        if action and index % SETTINGS.accumulate:
            action()
        return batches(index)

    def evaluate(model: nn.Module) -> dict[str, float]:
        return {"error": (model(inputs) - inputs.sum(-1, keepdim=True)).square().mean().item()}

    run = RunOptions(folder=folder, resume=resume)
    train(model, batch_at, _loss, SETTINGS, run=run, evaluation=Evaluation(evaluate, every=6))


def _add_noise(batch: Tensor, generator: torch.Generator) -> Tensor:
    return batch + 0.1 * torch.randn(batch.shape, generator=generator)


def _loss(model: nn.Module, batch: Tensor) -> tuple[Tensor, dict[str, float]]:
    noise = 0.1 * random.random() + 0.1 * np.random.rand()  # noqa: NPY002 – third-party code may draw from it
    return (model(batch) - batch.sum(-1, keepdim=True) - noise).square().mean(), {"noise": noise}
