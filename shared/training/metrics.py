"""The metrics of a run: one line of JSON every few steps, and the same for TensorBoard and a tracker."""

import json
import math
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from shared.atomic import disk_errors, write_atomically
from shared.distributed import gather_values
from shared.training.loss_sum import LossSum, Metrics
from shared.training.trackers import WandbTracker

FILE_NAME = "metrics.jsonl"


class MetricsLog:
    """Keep a run's lines in `history` and, if there is a folder, in its metrics.jsonl and tensorboard/.

    `tracker` gets every line, too.

    A run that continues after `first_step` steps first drops the lines that are newer than its checkpoint, because
    they will be written again.
    """

    def __init__(self, folder: Path | None, first_step: int, tracker: WandbTracker | None = None):
        self.folder, self.tracker = folder, tracker
        self.history: list[dict] = []
        if folder is None:
            return
        self.path = folder / FILE_NAME
        self.history = [line for line in read_metrics(self.path) if line["step"] <= first_step]
        write_atomically(self.path, "".join(map(_to_line, self.history)).encode())
        # Imported here because the import takes a moment, and a run without a folder does not need it.
        from torch.utils.tensorboard import SummaryWriter

        with disk_errors(folder / "tensorboard"):
            if first_step == 0:
                shutil.rmtree(folder / "tensorboard", ignore_errors=True)
            self.file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 – closed by close()
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a line. JSON has no NaN and no infinity: such a value is written as null."""
        line = {"step": step} | {key: value if math.isfinite(value) else None for key, value in values.items()}
        self.history.append(line)
        if self.folder is None:
            return
        with disk_errors(self.path):
            self.file.write(_to_line(line))
            self.file.flush()
            for key, value in values.items():
                self.board.add_scalar(key, value, step)
        if self.tracker is not None:
            self.tracker.log(step, values)

    def sync(self) -> None:
        """Flush the lines to the disk. Call this before a checkpoint that assumes they are there."""
        if self.folder is not None:
            with disk_errors(self.path):
                os.fsync(self.file.fileno())

    def close(self) -> None:
        if self.tracker is not None:
            self.tracker.close()
        if self.folder is not None:
            with disk_errors(self.path):
                self.file.close()
                self.board.close()


def read_metrics(path: Path) -> list[dict]:
    """Return the lines of a metrics.jsonl, [] when the file does not exist.

    A last line that was cut short is left out. A damaged line before it is left out with a warning.
    """
    raw_lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    lines = []
    for number, line in enumerate(raw_lines, 1):
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(raw_lines):
                print(f"warning: line {number} of {path} is damaged and left out", file=sys.stderr, flush=True)
    return lines


def curve_from_history(history: Iterable[Mapping[str, float]], key: str) -> tuple[list[int], list[float]]:
    """Return the steps at which a training log has `key`, and the values: a curve to plot.

    Raises ValueError when no line has it.
    """
    lines = list(history)
    lines_with_key = [line for line in lines if line.get(key) is not None]
    if not lines_with_key:
        names = sorted({name for line in lines for name in line})
        raise ValueError(f"no line of the log has {key!r}; there are {', '.join(names)}")
    return [int(line["step"]) for line in lines_with_key], [line[key] for line in lines_with_key]


class MetricMeans:
    """Accumulate metrics into means since the log's last line.

    The sums are a dictionary that a checkpoint can hold, so that a run that is cut between two lines continues to
    write the same next line.
    """

    def __init__(self, sums: dict[str, float]):
        self.sums = sums

    def add(self, values: Metrics) -> None:
        """Add one value for each metric, or a sum and the number of its terms."""
        for key, value in values.items():
            total, count = value if isinstance(value, LossSum) else (value, 1)
            self.sums[key] = self.sums.get(key, 0.0) + _number(total)
            self.sums[f"{key}/count"] = self.sums.get(f"{key}/count", 0) + _number(count)

    def pop(self) -> dict[str, float]:
        """Return the means, over all processes if there are several, and start again from nothing."""
        sums = average_sums(self.sums)
        means = {
            key: sums[key] / sums[f"{key}/count"] for key in sums if not key.endswith("/count") and sums[f"{key}/count"]
        }
        self.sums.clear()
        return means


def average_sums(sums: Mapping[str, float]) -> dict[str, float]:
    """Return the mean over the processes of the sums they have gathered; they need not have the same names.

    Means are what a single process would have gathered, so that another number of processes can continue with them.
    """
    parts = gather_values(dict(sums))
    names = dict.fromkeys(key for part in parts for key in part)
    return {key: sum(part.get(key, 0) for part in parts) / len(parts) for key in names} if parts[1:] else parts[0]


def _number(value: float | Tensor) -> float:
    return value.item() if isinstance(value, Tensor) else value


def _to_line(values: dict) -> str:
    return json.dumps(values) + "\n"
