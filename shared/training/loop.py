"""The training loop of every lesson in PyTorch."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from shared.distributed import gather_values, is_main, join, rank, world_size
from shared.errors import CourseError
from shared.training.batches import Batches, share_of, to_device
from shared.training.checkpoint import TrainingState
from shared.training.config import Evaluation, RunOptions, TrainingConfig
from shared.training.ema import ExponentialMovingAverage
from shared.training.explosion import LossWatch
from shared.training.interruption import Interruption, TrainingInterrupted
from shared.training.lock import exclusive_lock
from shared.training.lost_process import lost_process_told
from shared.training.memory import peak_memory
from shared.training.metrics import MetricsLog, Window
from shared.training.not_finite import not_finite
from shared.training.optimizers import build_optimizers, set_learning_rate
from shared.training.parallel import Parallel, anyone, blocks_prepared, mean_over_processes, total_norm
from shared.training.progress import open_display
from shared.training.random_state import chance_undisturbed, seed_everything
from shared.training.saving import Saver, load_newest, prepare_folder
from shared.training.slow_worker import SlowWorkers
from shared.training.stages import Stage, check_stages, enter_stage, frozen_parts_restored, stage_at, training_mode

Loss = Callable[[nn.Module, Any], Tensor | tuple[Tensor, dict[str, Tensor | float]]]


@dataclass
class TrainingResult:
    """What a run leaves: the log's lines, its length, and the model (with its average), in evaluation mode."""

    history: list[dict]
    seconds: float
    steps: int
    model: nn.Module
    ema: nn.Module | None


def train(
    model: nn.Module,
    batch_at: Callable[[int], Any],
    loss: Loss,
    config: TrainingConfig,
    *,
    run: RunOptions = RunOptions(),  # noqa: B008 – it is frozen
    evaluation: Evaluation | None = None,
    stages: tuple[Stage, ...] = (),
) -> TrainingResult:
    """Train `model` for `config.steps` steps and return what came of it.

    `batch_at(k)` is a pure function of the number of the batch. `loss(model, batch)` returns a scalar mean, or it and
    a dictionary of further things to log. `evaluation` measures the averaged model where there is one; it disturbs
    neither weights nor random states. With `run.folder` there are a log and checkpoints, and `run.resume` goes on from
    the last one, to the same weights as a run that was never cut.

    Under torchrun all processes call this alike, with the same arguments. Each takes its rows of every batch, which must
    divide evenly; only the main one shows and logs, and what it logs are means over all.

    Raises TrainingInterrupted after Ctrl-C or SIGTERM (all saved), NotFinite when the loss is no longer a number,
    Exploded when it has grown out of all measure, ProcessLost when another process died or hangs, and CourseError when
    disk, device or checkpoint are not what they should be.
    """
    device = usable_device(join(run.device))
    check_stages(stages, config.steps, model)
    seed_everything(config.seed, process=rank())
    parallel, state = _fresh_state(model, config, stages, device)
    folder = None if run.folder is None else Path(run.folder)
    with contextlib.ExitStack() as open_things:
        open_things.enter_context(lost_process_told(folder))
        if folder is not None:
            if is_main():
                open_things.enter_context(exclusive_lock(folder))
            prepare_folder(folder, run.resume)
            load_newest(folder, state)

        saver = None if folder is None else Saver(folder)
        window = Window(state.sums)
        pace = SlowWorkers(state.seconds)
        stage = None
        started = time.perf_counter() - state.seconds
        interruption = open_things.enter_context(Interruption(listen=folder is not None))
        log = open_things.enter_context(contextlib.closing(MetricsLog(folder if is_main() else None, state.step)))
        unit, per_step = _units(batch_at, config, run.tokens_per_step)
        display = open_display(run.label, state.step, config.steps, unit, per_step, device)
        open_things.enter_context(contextlib.closing(display))
        model = state.model
        watch = LossWatch(config.explosion_factor, gather_values(log.history)[0])  # all judge by the main one's log
        watch.remember(model, state.step)
        open_things.enter_context(frozen_parts_restored(model))
        by_block = config.compile and parallel.sharded
        open_things.enter_context(blocks_prepared(model, recompute=config.recompute, compile=by_block))
        training_mode(model)

        while state.step < config.steps:
            if (now := stage_at(stages, state.step)) is not stage:
                stage = now
                enter_stage(model, stage)
                training_mode(model)
                parallel.begin_stage()
            learning_rate = config.learning_rate_at(state.step)
            set_learning_rate(state.optimizers, learning_rate)

            # Gradients of several batches add up to that of one batch as large as all of them.
            losses = []
            first_batch = state.step * config.accumulate
            for number in range(first_batch, first_batch + config.accumulate):
                with parallel.work:
                    batch = to_device(share_of(batch_at(number), rank(), world_size()), device)
                last_batch = number == first_batch + config.accumulate - 1
                value, further = _with_metrics(parallel.loss(loss, batch, last=last_batch))
                (value / config.accumulate).backward()
                losses.append(value.detach())
                window.add({"loss": losses[-1]} | further)

            learning = [parameter for parameter in model.parameters() if parameter.grad is not None]
            norm = total_norm([parameter.grad for parameter in learning])
            losses = mean_over_processes(losses)
            # One look at one number: where anything in the step isn't finite, neither is this sum.
            if not torch.isfinite(norm + sum(losses)):
                raise not_finite(state, [float(value) for value in losses], batch_at, first_batch, folder)
            step_loss = float(sum(losses)) / config.accumulate
            if watch.exploded(step_loss):
                raise watch.error(state, step_loss, batch_at, config.accumulate, folder)
            if config.clip_norm is not None:
                clip_grads_with_norm_(learning, config.clip_norm, norm)
            for optimizer in state.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if state.ema is not None:
                state.ema.update(model, state.step)
            window.add({"gradient_norm": norm})

            state.step += 1
            state.seconds = time.perf_counter() - started
            last = state.step == config.steps
            display.update(state.step, step_loss, learning_rate)

            line = {}
            if last or state.step % config.log_every == 0:
                line |= window.take() | {"learning_rate": learning_rate, "seconds": state.seconds}
                line["memory_mb"] = round(peak_memory(device) / 1e6, 1)
                watch.remember(model, state.step)
                line |= pace.compare(parallel.work, state.seconds)
            if evaluation is not None and (last or (evaluation.every and state.step % evaluation.every == 0)):
                line |= _evaluated(evaluation, state, parallel)
            if line:
                log.write(state.step, line)
            stop = anyone(interruption.wanted)
            if saver is not None and (last or stop or state.step % config.checkpoint_every == 0):
                log.sync()
                saver.save(state)
                if last or stop:
                    saver.wait()
            if stop:
                raise TrainingInterrupted(
                    f"stopped by {stop} after step {state.step} of {config.steps}; all is saved in "
                    f"{folder}, and the same command with RESUME=1 goes on from here"
                )

    return TrainingResult(log.history, state.seconds, state.step, *parallel.finished())


def usable_device(device: str | torch.device) -> torch.device:
    """Return the torch device called `device`. Raises CourseError when this machine has no such device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        has = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu alone"
        raise CourseError(f"device {str(device)!r} was asked for, but this machine has {has}; choose that") from error
    return torch.device(device)


def _fresh_state(
    model: nn.Module, config: TrainingConfig, stages: tuple[Stage, ...], device: torch.device
) -> tuple[Parallel, TrainingState]:
    model.zero_grad(set_to_none=True)  # a gradient left over from before would be taken for one of ours
    ema = None if config.ema_decay is None else ExponentialMovingAverage(model, config.ema_decay)
    parallel = Parallel(
        model,
        ema and ema.average,
        mode=config.parallel,
        bfloat16=config.precision == "bfloat16",
        compile=config.compile,
        device=device,
    )
    model = parallel.model
    optimizers = build_optimizers(model, config.optimizer, config.learning_rate, config.weight_decay, config.betas)
    # Of the configuration, what leaves the numbers as they are is free to change between two sittings.
    settings = asdict(config) | {"betas": list(config.betas)}
    settings |= {"stages": [[stage.steps, *stage.trainable] for stage in stages]}
    for free in ("log_every", "checkpoint_every", "parallel", "recompute", "explosion_factor"):
        del settings[free]
    return parallel, TrainingState(model, optimizers, ema, device, settings)


def _with_metrics(value: Tensor | tuple[Tensor, dict]) -> tuple[Tensor, dict]:
    return value if isinstance(value, tuple) else (value, {})


def _evaluated(evaluation: Evaluation, state: TrainingState, parallel: Parallel) -> dict[str, float]:
    model = state.model if state.ema is None else state.ema.average
    model.eval()
    with torch.no_grad(), chance_undisturbed(state.device):
        values = parallel.evaluate(evaluation.function)
    training_mode(state.model)
    return {f"evaluation/{name}": float(value) for name, value in values.items()}


def _units(batch_at: Callable[[int], Any], config: TrainingConfig, tokens_per_step: int | None) -> tuple[str, int]:
    """What to count beside steps, and how many of it a step holds."""
    if tokens_per_step is not None:
        return "tokens", tokens_per_step
    if isinstance(batch_at, Batches):
        return "samples", batch_at.batch_size * config.accumulate
    return "", 0
