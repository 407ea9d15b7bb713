"""Four guards that end or report a run that makes no sense: divergence, values that are not finite, a lost process and
a slow one.

The first two save the batch and the state as evidence and name the first suspect among the parameters.
"""

import contextlib
import math
import socket
import statistics
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from shared.atomic import write_atomically
from shared.distributed import gather_values, is_main, rank, world_size
from shared.errors import CourseError
from shared.training.batches import batch_leaves, batch_to_safetensors
from shared.training.dtensor import local_shard
from shared.training.saving import Saver
from shared.training.sharded_checkpoint import list_sharded_checkpoints, step_of
from shared.training.training_state import TrainingState


class TrainingDiverged(CourseError):
    """The loss has risen far above everything that this run has seen, and stays there."""


class NotFinite(CourseError):
    """The loss or a gradient became NaN or infinite."""


class ProcessLost(CourseError):
    """Another process of the run died, or did not reach a collective in time."""


def save_evidence(folder: Path, state: TrainingState, batch: Any) -> None:
    """Write a state and a batch to `folder`, to find out what went wrong."""
    if is_main():
        write_atomically(folder / "batch.safetensors", batch_to_safetensors(batch))
    saver = Saver(folder)
    saver.save(state)
    saver.wait()


# ── Divergence ────────────────────────────────────────────────────────────────────────────────────────────────────────
#
# With clipped gradients a run rarely ends in NaN: it drifts away in steps of limited length, with a finite loss. The
# criterion must not stop a healthy run: a bad batch, a spike that heals, a loss near zero that jumps a hundredfold, a
# reward that is found late, a term that joins the loss midway. Therefore a loss is not compared with the recent past.
# It is compared with the highest of the whole run until a while ago, including the untrained model's, and it must stay
# above a multiple of that for many steps. Gradient norms are not judged: in a healthy run they span orders of
# magnitude, and clipping bounds their effect.

LAG = 100  # steps after which a loss counts toward the highest: growth must not raise its own limit
PATIENCE = 20  # consecutive steps: longer than a bad batch and most spikes


class DivergenceWatch:
    """Compare every step's loss with the highest until `LAG` steps ago.

    While all is well, record each parameter's norm, to name the one that has grown when the run diverges.
    A loss is too high when it exceeds `factor` × the highest, or `factor` when the highest is below 1, because a loss
    near zero has no scale. A loss that was too high never counts toward the highest. A run that continues rebuilds
    the record from the log, `history`. `factor=None` turns the guard off.
    """

    def __init__(self, factor: float | None, history: Iterable[Mapping[str, float]] = ()):
        self.factor, self.too_high = factor, 0
        self.highest: float | None = None
        self.recent: deque[float] = deque()
        self.norms: dict[str, float] = {}
        self.norms_step = 0  # the step at which the norms were recorded
        step = 0
        for line in history:
            if line.get("loss") is not None:  # the mean over the steps since the line before
                for _ in range(int(line["step"]) - step):
                    self.has_diverged(line["loss"])
                step = int(line["step"])
        self.too_high = 0

    def has_diverged(self, loss: float) -> bool:
        """Record the loss of a step and return whether it is the last of `PATIENCE` losses that were too high."""
        if self.factor is None:
            return False
        if self.highest is not None and loss > self.factor * max(1.0, self.highest):
            self.too_high += 1
        else:
            self.too_high = 0
            self.recent.append(abs(loss))
            if len(self.recent) > LAG:
                self.highest = max(self.highest or 0.0, self.recent.popleft())
        return self.too_high >= PATIENCE

    def record_norms(self, model: nn.Module, step: int) -> None:
        """Record the norm of every parameter, unless the loss is too high already."""
        if self.factor is not None and not self.too_high:
            self.norms, self.norms_step = _local_norms(model), step

    def error(
        self, state: TrainingState, loss: float, batch_at: Callable[[int], Any], accumulate: int, folder: Path | None
    ) -> TrainingDiverged:
        """Return the error to raise, after saving the state and the batch at which it began in folder/diverged/."""
        first_step = state.step - PATIENCE + 1
        before, now = _norms_over_processes(self.norms), _norms_over_processes(_local_norms(state.model))
        growth = {name: norm / max(before[name], 1e-12) for name, norm in now.items()}
        name = max(growth, key=growth.__getitem__)
        message = (
            f"training stopped at step {state.step + 1}: for {PATIENCE} steps the loss has been more than "
            f"{self.factor:g} times the highest until {LAG} steps before "
            f"(now {loss:.3g}, then at most {self.highest:.3g}). The parameter that has grown most is {name}: "
            f"{growth[name]:.3g} times its norm after step {self.norms_step}."
        )
        if folder is not None:
            index = first_step * accumulate
            save_evidence(folder / "diverged", state, batch_at(index))
            message += f" The batch at which it began (number {index}) and the state now are in {folder / 'diverged'}."
        return TrainingDiverged(
            message
            + " Usual causes: too high a learning rate, too short a warm-up, a bad sample. If the loss is meant to "
            "rise so far, set divergence_factor=None"
        )


@torch.no_grad()
def _local_norms(model: nn.Module) -> dict[str, float]:
    """Return the norm of each parameter, or of the shard of it that this process holds."""
    named = dict(model.named_parameters())
    norms = torch._foreach_norm([local_shard(parameter) for parameter in named.values()])
    return dict(zip(named, torch.stack(list(norms)).tolist(), strict=True))


def _norms_over_processes(norms: dict[str, float]) -> dict[str, float]:
    """Combine the norms of shards. For N full copies the result is √N times too large, which cancels in a ratio."""
    parts = gather_values(norms)
    return {name: math.hypot(*(part[name] for part in parts)) for name in norms}


# ── Values that are not finite ────────────────────────────────────────────────────────────────────────────────────────


def not_finite_error(
    state: TrainingState, losses: list[float], batch_at: Callable[[int], Any], first_batch: int, folder: Path | None
) -> NotFinite:
    """Return the error to raise, after saving the state before the bad step and the batch in folder/not-finite/.

    The batch is the first one of the step whose loss is not finite, or else the step's first.
    """
    position = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), 0)
    batch = batch_at(first_batch + position)
    message = f"training stopped at step {state.step + 1}: the loss is {losses[position]:g}. {_suspect(state, batch)}."
    if folder is not None:
        evidence = folder / "not-finite"
        save_evidence(evidence, state, batch)
        message += f" The batch (number {first_batch + position}) and the state before this step are in {evidence}."
    return NotFinite(message + " Usual causes: too high a learning rate, log or division by zero, a bad sample")


def _suspect(state: TrainingState, batch: Any) -> str:
    parameters = dict(state.model.named_parameters())
    if name := _first_not_finite(parameters):
        return f"The parameter {name} is not finite already before the step"
    for name, leaf in batch_leaves(batch):
        if isinstance(leaf, Tensor) and not bool(torch.isfinite(leaf).all()):
            return f"The batch itself is not finite, at {name}"
    if name := _first_not_finite({name: parameter.grad for name, parameter in parameters.items()}):
        return f"Parameters and batch are finite; the first gradient that is not finite is that of {name}"
    return "Parameters, batch and all gradients are finite: check the loss function"


def _first_not_finite(named: Mapping[str, Tensor | None]) -> str | None:
    """Return the name of the first tensor that is not finite, in the shard of any process."""
    own_names = [
        name for name, tensor in named.items() if tensor is not None and not torch.isfinite(local_shard(tensor)).all()
    ]
    all_names = {name for names in gather_values(own_names) for name in names}
    return next((name for name in named if name in all_names), None)


# ── A lost process ────────────────────────────────────────────────────────────────────────────────────────────────────

# gloo raises plain RuntimeErrors. Most name their own source file; when several operations time out at once, some say
# the second phrase instead.
GLOO_PHRASES = ("gloo", "timeout caused pair closure")


@contextlib.contextmanager
def report_lost_process(folder: Path | None) -> Iterator[None]:
    """Turn the error of a broken collective into ProcessLost, which says how to continue.

    The other processes cannot finish a step alone. gloo and NCCL detect a process that dies by its closed connection,
    and one that hangs by the timeout that `join` has set.
    """
    try:
        yield
    except RuntimeError as error:
        from_collective = isinstance(error, distributed.DistError) or any(
            phrase in str(error) for phrase in GLOO_PHRASES
        )
        if world_size() == 1 or not from_collective:
            raise
        reason = str(error).splitlines()[0].split("] ", 1)[-1].split(". ")[0]
        raise ProcessLost(
            f"process {rank()} waited for another process, which has died or hangs ({reason}). "
            f"{_how_to_continue(folder)}"
        ) from error


def _how_to_continue(folder: Path | None) -> str:
    if folder is None:
        return "Nothing was saved, because train() was given no folder."
    checkpoints = list_sharded_checkpoints(folder)
    if not checkpoints:
        return f"There is no checkpoint of this run in {folder} yet: start again, with a smaller checkpoint_every."
    return f"Step {step_of(checkpoints[0])} is saved in {folder}; the same command with RESUME=1 continues from there."


# ── A slow process ────────────────────────────────────────────────────────────────────────────────────────────────────
#
# A step of many processes takes as long as its slowest one. Wall time does not show which that is, because the fast
# ones wait for it. Therefore each process measures what it does alone: reading its batch and the forward pass, without
# waiting for others' weights. (On a GPU that is the time of the host, which launches kernels and feeds them. A GPU that
# is slow itself shows only where the host waits for it.)

SLOW_FACTOR = 1.5  # a process is slow when it takes this many times as long as the median of the others …
SLOW_FRACTION = 0.2  # … and the difference is at least this fraction of the wall time
COMPARED_SECONDS = 2.0  # judged over at least so long, because every process is slow for a moment now and then


class SlowProcessWatch:
    """Compare the processes' own work from time to time. The main process names a slow one, once."""

    def __init__(self, seconds: float):
        self.last_comparison = seconds
        self.work_seconds = [0.0] * world_size()
        self.reported: set[int] = set()

    def compare(self, work: float, seconds: float) -> dict[str, float]:
        """Return what to log: which process worked longest since the last call, and the ratio to the others' median.

        work     seconds that this process has worked alone since the last call
        seconds  duration of the whole run so far
        """
        if world_size() == 1:
            return {}
        work_seconds, hosts = zip(*gather_values((work, socket.gethostname())), strict=True)
        self.work_seconds = [before + now for before, now in zip(self.work_seconds, work_seconds, strict=True)]
        if seconds - self.last_comparison >= COMPARED_SECONDS:
            process, _ = slowest_process(self.work_seconds)
            message = slow_process_warning(self.work_seconds, hosts, seconds - self.last_comparison)
            if message and is_main() and process not in self.reported:
                print(f"warning: {message}", file=sys.stderr, flush=True)
                self.reported.add(process)
            self.work_seconds, self.last_comparison = [0.0] * world_size(), seconds
        process, slowdown = slowest_process(work_seconds)
        return {"slowest_process": process, "slowdown": slowdown}


def slowest_process(work: Sequence[float]) -> tuple[int, float]:
    """Return the rank of the process that worked longest, and the ratio of its time to the median of the others.

    work  seconds of each process, in the order of ranks; at least two
    """
    process = max(range(len(work)), key=work.__getitem__)
    others = statistics.median([*work[:process], *work[process + 1 :]])
    return process, work[process] / max(others, 1e-9)


def slow_process_warning(work: Sequence[float], hosts: Sequence[str], seconds: float) -> str | None:
    """Return a warning that names the slow process, if there is one, for work done in `seconds` of wall time."""
    process, factor = slowest_process(work)
    lost = work[process] * (1 - 1 / factor) / seconds
    if factor < SLOW_FACTOR or lost < SLOW_FRACTION:
        return None
    return (
        f"process {process} on {hosts[process]} is slow: its data and forward passes take {factor:.1f} times as long "
        f"as the others', which wait {lost:.0%} of the time; check for another program, a slow disk, a hot chip"
    )
