"""Faults to plant in the training loop, each of which the sweep must detect."""

from pathlib import Path

import torch

from shared.training import checkpoint, metrics, recovery
from shared.training.training_state import TrainingState


def write_in_place() -> None:
    """Overwrite the last checkpoint instead of writing a temporary file."""

    def write(path: Path, content: bytes, *, backup: Path | None = None) -> None:
        path.write_bytes(content)

    checkpoint.write_atomically = write


def forget_random_states() -> None:
    """Continue with the random numbers that a new run starts with."""
    checkpoint.restore_random_states = lambda *_: None


def forget_python_random_states() -> None:
    """Restore PyTorch's generators only."""
    checkpoint.restore_random_states = lambda generators, _, device: torch.set_rng_state(generators["cpu"])


def forget_sums() -> None:
    """Lose the metrics gathered since the log's last line."""
    load = recovery.load_checkpoint

    def load_without_sums(path: Path, state: TrainingState) -> None:
        load(path, state)
        state.sums = {}

    recovery.load_checkpoint = load_without_sums


def skip_a_line() -> None:
    """Lose the first line after a resumption."""
    write = metrics.MetricsLog.write

    def write_all_but_first(self, step: int, values: dict) -> None:
        if self.history and not hasattr(self, "skipped"):
            self.skipped = True
        else:
            write(self, step, values)

    metrics.MetricsLog.write = write_all_but_first


def keep_later_lines() -> None:
    """Keep the lines that are newer than the checkpoint, so that they occur twice."""
    initialize = metrics.MetricsLog.__init__

    def initialize_with_all_lines(self, folder: Path, first_step: int) -> None:
        initialize(self, folder, max(first_step, 10**9))

    metrics.MetricsLog.__init__ = initialize_with_all_lines


FAULTS = {
    "checkpoints are written in place": write_in_place,
    "random states are forgotten": forget_random_states,
    "Python's and NumPy's random states are forgotten": forget_python_random_states,
    "sums between two lines are forgotten": forget_sums,
    "a line is skipped": skip_a_line,
    "lines occur twice": keep_later_lines,
}
