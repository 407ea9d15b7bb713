"""The training loop that every PyTorch lesson uses."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grads_with_norm_

from shared.devices import usable_device
from shared.distributed import gather_values, is_main, join, rank, world_size
from shared.training.batches import Batches, split_batch, to_device
from shared.training.config import Evaluation, RunOptions, TrainingConfig
from shared.training.ema import ExponentialMovingAverage
from shared.training.interruption import Interruption, TrainingInterrupted
from shared.training.lock import exclusive_lock
from shared.training.loss_sum import LossSum, LossValue, add_losses, split_metrics
from shared.training.memory import peak_memory
from shared.training.metrics import MetricMeans, MetricsLog
from shared.training.optimizers import build_optimizers, set_learning_rate
from shared.training.parallel import Parallel, any_process, mean_loss_over_processes, prepare_blocks, total_norm
from shared.training.progress import Pace, open_display
from shared.training.random_state import preserve_random_states, seed_everything
from shared.training.recovery import load_newest, prepare_folder
from shared.training.saving import Saver
from shared.training.stages import (
    Stage,
    check_stages,
    enter_stage,
    restore_frozen_parameters,
    set_training_mode,
    stage_at,
)
from shared.training.trackers import WandbTracker, require_tracker
from shared.training.training_state import TrainingState
from shared.training.watchdog import DivergenceWatch, SlowProcessWatch, not_finite_error, report_lost_process

BatchAt = Callable[[int], Any]
Loss = Callable[[nn.Module, Any], LossValue]

# Settings that change no weight, so that they may differ when a run continues.
FREE_SETTINGS = ("log_every", "checkpoint_every", "parallel", "recompute", "divergence_factor")


@dataclass
class TrainingResult:
    """Hold what a run leaves: the log's lines, its length, and the model and its average in evaluation mode."""

    history: list[dict]
    seconds: float
    steps: int
    model: nn.Module
    ema: nn.Module | None


@dataclass(frozen=True)
class _Task:
    """The arguments of `train`, apart from the model."""

    batch_at: BatchAt
    loss: Loss
    config: TrainingConfig
    run: RunOptions
    evaluation: Evaluation | None
    stages: tuple[Stage, ...]


def train(
    model: nn.Module,
    batch_at: BatchAt,
    loss: Loss,
    config: TrainingConfig,
    *,
    run: RunOptions = RunOptions(),  # noqa: B008 – it is frozen
    evaluation: Evaluation | None = None,
    stages: tuple[Stage, ...] = (),
) -> TrainingResult:
    """Train `model` for `config.steps` steps and return the result.

    batch_at    `batch_at(index)` is a pure function of the batch's index
    loss        `loss(model, batch)` returns a `LossSum`, or a scalar mean if each batch has equally many terms; either
                may be followed by a dictionary of metrics to log
    run         with a folder there are a log and checkpoints, and a resumed run reaches the weights of an uncut one
    evaluation  is applied to the averaged model if there is one; it changes neither weights nor random states
    stages      which parameters train when; () trains all

    Under torchrun all processes call this with the same arguments. Each takes its rows of every batch, which must
    divide evenly. Only the main process displays and logs, and it logs means over all of them.

    Raises TrainingInterrupted after Ctrl-C or SIGTERM (everything is saved), NotFinite, TrainingDiverged, ProcessLost
    when another process died or hangs, and CourseError for problems with disk, device or checkpoint.
    """
    device = usable_device(join(run.device))
    require_tracker(run.tracker)
    if run.tracker is not None and run.folder is None:
        raise ValueError(f"the tracker {run.tracker} needs the run's folder; it keeps its files there")
    check_stages(stages, config.steps, model)
    seed_everything(config.seed, process=rank())
    task = _Task(batch_at, loss, config, run, evaluation, stages)
    parallel, state = _initial_state(model, task, device)
    folder = None if run.folder is None else Path(run.folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(report_lost_process(folder))
        if folder is not None:
            if is_main():
                stack.enter_context(exclusive_lock(folder))
            prepare_folder(folder, run.resume)
            load_newest(folder, state)
        session = _Session(task, parallel, state, folder, stack)
        while state.step < config.steps:
            session.take_step()
    return TrainingResult(session.log.history, state.seconds, state.step, *parallel.gather_models())


def _initial_state(model: nn.Module, task: _Task, device: torch.device) -> tuple[Parallel, TrainingState]:
    config = task.config
    model.zero_grad(set_to_none=True)  # the optimizers would apply a gradient that is left from before
    ema = None if config.ema_decay is None else ExponentialMovingAverage(model, config.ema_decay)
    parallel = Parallel(model, None if ema is None else ema.average, config, device)
    model = parallel.model
    optimizers = build_optimizers(model, config.optimizer, config.learning_rate, config.weight_decay, config.betas)
    settings = asdict(config) | {"betas": list(config.betas)}
    settings |= {"stages": [[stage.steps, *stage.trainable] for stage in task.stages]}
    for name in FREE_SETTINGS:
        del settings[name]
    return parallel, TrainingState(model, optimizers, ema, device, settings)


class _Session:
    """Train from the loaded state on, in this process, until the last step or an interruption.

    `stack` closes what the session opens.
    """

    def __init__(
        self, task: _Task, parallel: Parallel, state: TrainingState, folder: Path | None, stack: contextlib.ExitStack
    ):
        config = task.config
        self.task, self.config, self.parallel, self.state, self.folder = task, config, parallel, state, folder
        self.saver = None if folder is None else Saver(folder)
        self.means = MetricMeans(state.sums)
        self.slow_process_watch = SlowProcessWatch(state.seconds)
        self.stage: Stage | None = None
        self.started = time.perf_counter() - state.seconds
        self.interruption = stack.enter_context(Interruption(listen=folder is not None))
        log_folder = folder if is_main() else None
        self.log = stack.enter_context(
            contextlib.closing(MetricsLog(log_folder, state.step, self._tracker(log_folder)))
        )
        display = open_display(task.run.label, Pace(state.step, config.steps, *_units(task), state.device))
        self.display = stack.enter_context(contextlib.closing(display))
        # All processes judge by the main one's log.
        self.divergence_watch = DivergenceWatch(config.divergence_factor, gather_values(self.log.history)[0])
        self.divergence_watch.record_norms(state.model, state.step)
        stack.enter_context(restore_frozen_parameters(state.model))
        by_block = config.compile and parallel.sharded
        stack.enter_context(prepare_blocks(state.model, recompute=config.recompute, compile=by_block))
        set_training_mode(state.model)

    def take_step(self) -> None:
        """Take one optimizer step, then log, evaluate and save when it is time for that."""
        self._enter_stage()
        learning_rate = self.config.learning_rate_at(self.state.step)
        set_learning_rate(self.state.optimizers, learning_rate)
        loss = self._update_weights(self._accumulate_gradients())
        self.state.step += 1
        self.state.seconds = time.perf_counter() - self.started
        self.display.update(self.state.step, loss, learning_rate)
        self._log(learning_rate)
        self._save()

    def _tracker(self, folder: Path | None) -> WandbTracker | None:
        """Open the run's tracker, if it names one, this is the main process, and there are steps to take."""
        run, state = self.task.run, self.state
        if run.tracker is None or folder is None or self._is_last:
            return None
        return WandbTracker(run.tracker, folder, run.label, state.settings, state.step)

    @property
    def _is_last(self) -> bool:
        return self.state.step == self.config.steps

    def _enter_stage(self) -> None:
        stage = stage_at(self.task.stages, self.state.step)
        if stage is not None and stage is not self.stage:
            self.stage = stage
            enter_stage(self.state.model, stage)
            set_training_mode(self.state.model)
            self.parallel.begin_stage()

    def _accumulate_gradients(self) -> list[LossSum]:
        """Sum up the gradients of the step's batches, not yet divided by the number of terms; return each loss."""
        losses = []
        accumulate = self.config.accumulate
        for number in range(accumulate):
            with self.parallel.work:
                batch = self.task.batch_at(self.state.step * accumulate + number)
                batch = to_device(split_batch(batch, rank(), world_size()), self.state.device)
            value = self.parallel.loss(self.task.loss, batch, last=number == accumulate - 1)
            loss, metrics = split_metrics(value)
            loss.total.backward()
            losses.append(LossSum(loss.total.detach(), loss.terms))
            self.means.add(metrics)
        return losses

    def _update_weights(self, losses: list[LossSum]) -> float:
        """Divide, check and clip the gradients, step the optimizers and the average; return the step's mean loss."""
        state, config = self.state, self.config
        parameters = [parameter for parameter in state.model.parameters() if parameter.grad is not None]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        losses = mean_loss_over_processes(losses)
        step = add_losses(losses)
        mean = step.mean()
        if gradients and step.terms != 1:
            # DDP and FSDP have averaged the gradients over the processes, as the count is averaged.
            torch._foreach_div_(gradients, float(step.terms))
        norm = total_norm(gradients)
        # One check of one number: if anything in the step is not finite, neither is this sum.
        if not torch.isfinite(norm + mean):
            first_batch = state.step * config.accumulate
            means = [float(each.total) / max(float(each.terms), 1e-12) for each in losses]
            raise not_finite_error(state, means, self.task.batch_at, first_batch, self.folder)
        loss = float(mean)
        if self.divergence_watch.has_diverged(loss):
            raise self.divergence_watch.error(state, loss, self.task.batch_at, config.accumulate, self.folder)
        if config.clip_norm is not None:
            clip_grads_with_norm_(parameters, config.clip_norm, norm)
        for optimizer in state.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if state.ema is not None:
            state.ema.update(state.model, state.step)
        self.means.add({"loss": loss, "gradient_norm": norm})
        return loss

    def _log(self, learning_rate: float) -> None:
        state, line = self.state, dict[str, float]()
        if self._is_last or state.step % self.config.log_every == 0:
            line |= self.means.pop() | {"learning_rate": learning_rate, "seconds": state.seconds}
            line["memory_mb"] = round(peak_memory(state.device) / 1e6, 1)
            self.divergence_watch.record_norms(state.model, state.step)
            line |= self.slow_process_watch.compare(self.parallel.work.pop(), state.seconds)
        evaluation = self.task.evaluation
        if evaluation is not None and (self._is_last or (evaluation.every and state.step % evaluation.every == 0)):
            line |= self._evaluate(evaluation)
        if line:
            self.log.write(state.step, line)

    def _evaluate(self, evaluation: Evaluation) -> dict[str, float]:
        state = self.state
        model = state.model if state.ema is None else state.ema.average
        model.eval()
        with torch.no_grad(), preserve_random_states(state.device):
            values = self.parallel.evaluate(evaluation.function)
        set_training_mode(state.model)
        return {f"evaluation/{name}": float(value) for name, value in values.items()}

    def _save(self) -> None:
        """Save when a checkpoint is due. Raises TrainingInterrupted after saving, when a process was asked to stop."""
        state = self.state
        signal_name = any_process(self.interruption.signal_name)
        is_final = self._is_last or bool(signal_name)
        if self.saver is not None and (is_final or state.step % self.config.checkpoint_every == 0):
            self.log.sync()
            self.saver.save(state)
            if is_final:
                self.saver.wait()
        if signal_name:
            raise TrainingInterrupted(
                f"stopped by {signal_name} after step {state.step} of {self.config.steps}; everything is saved in "
                f"{self.folder}, and the same command with RESUME=1 continues from there"
            )


def _units(task: _Task) -> tuple[str, int]:
    """Return what to count besides steps, and how many of it a step processes."""
    if task.run.tokens_per_step is not None:
        return "tokens", task.run.tokens_per_step
    if isinstance(task.batch_at, Batches):
        return "samples", task.batch_at.batch_size * task.config.accumulate
    return "", 0
