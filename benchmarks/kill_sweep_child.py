"""The small run that benchmarks/kill_sweep.py kills: what it trains, on how slow a disk, and where it may die.

It has everything that a run can lose: two optimizers, an average, running statistics, accumulated batches, augmentation,
dropout, noise drawn from Python's and NumPy's generators, metrics gathered between two lines, evaluations, and a
checkpoint every third step.
"""

import builtins
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # optimizers load it at their first step, which every child would spend seconds on
import torch.utils.tensorboard  # every run's log does so
from torch import Tensor, nn

from shared.training import Batches, Evaluation, RunOptions, TrainingConfig, checkpoint, metrics, train
from shared.training import recovery as last_good

STEPS = 48
SETTINGS = TrainingConfig(
    STEPS, 1e-2, "muon", warmup_steps=5, accumulate=2, ema_decay=0.9, log_every=4, checkpoint_every=3
)
PLACES = (
    "its temporary file is open and empty",
    "half of it is written",
    "all is written, nothing synced",
    "it is synced, not yet renamed",
    "between the two renames",
    "both renames are done, not yet synced",
)


@dataclass
class Plan:
    """What befalls one sitting of the run."""

    resume: bool = True
    seconds_per_write: float = 0.01  # so long a checkpoint's writing is made to take
    die_at: tuple[str, int] | None = None  # one of PLACES, in the writing of the n-th checkpoint of this sitting
    planted: str | None = None  # one of FAULTS


def sit(folder: Path, plan: Plan) -> None:
    """Train in `folder`, from its start or from where it was cut, as `plan` says."""
    torch.set_num_threads(1)
    log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if plan.planted:
        FAULTS[plan.planted]()
    SlowDisk(plan).install()
    go(folder, plan.resume)


def go(folder: Path, resume: bool, at_step: dict | None = None) -> None:
    """The run itself. `at_step` names what is to be called in the midst of which step (counted from 1)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 48), nn.BatchNorm1d(48), nn.GELU(), nn.Dropout(0.2), nn.Linear(48, 48))
    model.append(nn.Linear(48, 1))
    inputs = torch.randn(160, 6, generator=torch.Generator().manual_seed(1))
    at_step = at_step or {}

    def batch_at(number: int) -> Tensor:
        if number % SETTINGS.accumulate and (act := at_step.get(number // SETTINGS.accumulate + 1)):
            act()
        return batches(number)

    def augment(batch: Tensor, generator: torch.Generator) -> Tensor:
        return batch + 0.1 * torch.randn(batch.shape, generator=generator)

    def loss(model: nn.Module, batch: Tensor) -> tuple[Tensor, dict]:
        noise = 0.1 * random.random() + 0.1 * np.random.rand()  # noqa: NPY002 – it is what others may draw from
        value = (model(batch) - batch.sum(-1, keepdim=True) - noise).square().mean()
        return value, {"noise": noise}

    def evaluate(model: nn.Module) -> dict[str, float]:
        return {"error": (model(inputs) - inputs.sum(-1, keepdim=True)).square().mean().item()}

    batches = Batches(inputs, batch_size=16, seed=2, augment=augment)
    train(
        model,
        batch_at,
        loss,
        SETTINGS,
        run=RunOptions(folder=folder, resume=resume),
        evaluation=Evaluation(evaluate, every=6),
    )


@dataclass
class SlowDisk:
    """Makes a checkpoint's writing take long enough to be hit, and dies in the midst of it where the plan says so."""

    plan: Plan
    writing: bool = False  # between the temporary file's opening and the rename that ends it
    reached: Counter = field(default_factory=Counter)

    def install(self) -> None:
        really_open, really_sync, really_replace = builtins.open, os.fsync, os.replace

        def slow_open(file, mode="r", *options, **more):
            opened = really_open(file, mode, *options, **more)
            if mode == "wb" and Path(file).name.startswith(checkpoint.FILE_NAME):
                self.writing = True
                self.reach("its temporary file is open and empty")
                return SlowFile(opened, self)
            return opened

        def sync(descriptor: int) -> None:
            if self.writing:
                self.reach("all is written, nothing synced")
            really_sync(descriptor)
            if self.writing:
                self.reach("it is synced, not yet renamed")

        def replace(old, new) -> None:
            really_replace(old, new)
            if Path(old).name == checkpoint.FILE_NAME:
                self.reach("between the two renames")
            elif Path(new).name == checkpoint.FILE_NAME:
                self.reach("both renames are done, not yet synced")
                self.writing = False

        builtins.open, os.fsync, os.replace = slow_open, sync, replace

    def reach(self, place: str) -> None:
        self.reached[place] += 1
        if self.plan.die_at == (place, self.reached[place]):
            os.kill(os.getpid(), signal.SIGKILL)


class SlowFile:
    """A file to which a large write goes in pieces."""

    def __init__(self, file, disk: SlowDisk):
        self.file, self.disk = file, disk

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, content: bytes) -> None:
        pieces = 10
        size = -(-len(content) // pieces)
        for piece in range(pieces):
            if piece == pieces // 2:
                self.disk.reach("half of it is written")
            self.file.write(content[piece * size : (piece + 1) * size])
            self.file.flush()
            time.sleep(self.disk.plan.seconds_per_write / pieces)

    def flush(self) -> None:
        self.file.flush()

    def fileno(self) -> int:
        return self.file.fileno()


# ── Faults to plant: what the sweep must not miss ─────────────────────────────────────────────────────────────────────


def write_in_place() -> None:
    """Write over the last checkpoint instead of beside it."""

    def write(path: Path, content: bytes, *, backup: Path | None = None) -> None:
        with open(path, "wb") as file:
            file.write(content)

    checkpoint.write_atomically = write


def forget_random_states() -> None:
    """Go on with the random numbers that a fresh run begins with."""
    checkpoint.restore_random = lambda *_: None


def forget_pythons_random_state() -> None:
    """Restore PyTorch's generators and forget the others'."""
    checkpoint.restore_random = lambda tensors, numbers, device: torch.set_rng_state(tensors["cpu"])


def forget_sums() -> None:
    """Lose what was gathered since the last line of the log."""
    load = last_good.load_checkpoint

    def load_without_sums(path: Path, state: checkpoint.TrainingState) -> None:
        load(path, state)
        state.sums = {}

    last_good.load_checkpoint = load_without_sums


def skip_a_line() -> None:
    """Lose the first line after a resumption."""
    write = metrics.MetricsLog.write

    def skipping(self, step: int, values: dict) -> None:
        if self.history and not hasattr(self, "skipped"):
            self.skipped = True
        else:
            write(self, step, values)

    metrics.MetricsLog.write = skipping


def keep_later_lines() -> None:
    """Leave the lines that were written after the checkpoint, so that they come twice."""
    begin = metrics.MetricsLog.__init__

    def keep(self, folder: Path, first_step: int) -> None:
        begin(self, folder, max(first_step, STEPS))

    metrics.MetricsLog.__init__ = keep


FAULTS = {
    "checkpoints are written in place": write_in_place,
    "random states are forgotten": forget_random_states,
    "Python's and NumPy's random states are forgotten": forget_pythons_random_state,
    "sums between two lines are forgotten": forget_sums,
    "a line is skipped": skip_a_line,
    "lines come twice": keep_later_lines,
}
