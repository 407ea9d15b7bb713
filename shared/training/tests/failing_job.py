"""What each process of test_lost_process.py does: in the midst of a run, something befalls the last one."""

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
from shared.training import ProcessLost, explosion
from shared.training.tests.parallel_job import CUT, CUT_AFTER, classify, run

UNFINISHED = "unfinished-checkpoint-00000012"


class Failing:
    """The loss of the Vision Transformer, in which the last process fails in the way called `how` at a certain step."""

    def __init__(self, how: str, folder: Path):
        self.how, self.folder = how, folder
        self.calls, self.last = 0, rank() == world_size() - 1

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls += model.training
        if self.how == "is slow" and model.training and self.last:
            time.sleep(0.1)  # before the others' blocks ask for its shares
        value, further = classify(model, batch)
        if not model.training or not self.last:
            return value, further
        if self.how == "explodes" and self.calls > 2 * CUT_AFTER:
            value = value * 1e4
        if self.calls == 2 * CUT_AFTER:  # two batches a step
            if self.how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "hangs":
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                time.sleep(600)
            if self.how == "meets a full disk":
                (self.folder / UNFINISHED).write_text("in the way of what is to be saved next")
            if self.how == "meets a disk that is full at the end":
                (self.folder / UNFINISHED / "training.json").mkdir(parents=True)
            if self.how == "computes NaN":
                value = value * math.nan
        return value, further


def fail(folder: Path, how: str, parallel: str) -> None:
    """Run until it fails; what each process then says goes to stderr."""
    changes = CUT | {"checkpoint_every": 4} | ({"steps": 12} if how == "is slow" else {})
    try:
        run("vit", parallel, folder, loss=Failing(how, folder), **changes)
    except CourseError as error:
        print(f"{how}, {parallel}, {rank()}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        if isinstance(error, ProcessLost):
            sys.exit(1)  # so that torchrun ends those that hang


def watch_closely() -> None:
    """Let a loss that explodes be noticed within a short run."""
    explosion.LAG, explosion.PATIENCE = 4, 3


def main(folder: Path, failures: Sequence[str]) -> None:
    torch.set_num_threads(1)
    join(timeout=timedelta(seconds=12 if "hangs/ddp" in failures else 60))
    watch_closely()
    for failure in failures:  # such as dies/ddp
        fail(folder / failure, *failure.split("/"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
