"""What each process of test_watchdog_processes.py runs: a training in which the last process fails halfway."""

import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, nn

from shared.distributed import join, rank, world_size
from shared.errors import CourseError
from shared.training import ProcessLost, watchdog
from shared.training.tests.parallel_cases import classify
from shared.training.tests.parallel_job import CUT, CUT_AFTER, run

UNFINISHED = "unfinished-checkpoint-00000012"


class FailingLoss:
    """The loss of the Vision Transformer, in which the last process has the `failure` at a certain step."""

    def __init__(self, failure: str, folder: Path):
        self.failure, self.folder = failure, folder
        self.calls, self.is_last = 0, rank() == world_size() - 1

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls += model.training
        if self.failure == "is slow" and model.training and self.is_last:
            time.sleep(0.1)  # before the others' blocks request its shards
        value, metrics = classify(model, batch)
        if not model.training or not self.is_last:
            return value, metrics
        if self.failure == "diverges" and self.calls > 2 * CUT_AFTER:
            value = value * 1e4
        if self.calls == 2 * CUT_AFTER:  # two batches per step
            if self.failure == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.failure == "hangs":
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                time.sleep(600)
            if self.failure == "disk full":
                (self.folder / UNFINISHED).write_text("blocks the next checkpoint")
            if self.failure == "disk full at the end":
                (self.folder / UNFINISHED / "training.json").mkdir(parents=True)
            if self.failure == "computes NaN":
                value = value * math.nan
        return value, metrics


def fail(folder: Path, failure: str, parallel: str) -> None:
    """Run until the failure; each process prints its error to stderr."""
    changes = CUT | {"checkpoint_every": 4} | ({"steps": 12} if failure == "is slow" else {})
    try:
        run("vit", parallel, folder, loss=FailingLoss(failure, folder), **changes)
    except CourseError as error:
        print(f"{failure}, {parallel}, {rank()}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        if isinstance(error, ProcessLost):
            sys.exit(1)  # so that torchrun ends those that hang


def detect_divergence_early() -> None:
    """Lower the limits, so that divergence is detected within a short run."""
    watchdog.LAG, watchdog.PATIENCE = 4, 3


def main(folder: Path, failures: Sequence[str]) -> None:
    torch.set_num_threads(1)
    # The launcher ends the others when one has died; its signal may arrive between the error and its message.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    join(timeout=timedelta(seconds=12 if "hangs/ddp" in failures else 60))
    detect_divergence_early()
    for failure in failures:  # such as dies/ddp
        fail(folder / failure, *failure.split("/"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
