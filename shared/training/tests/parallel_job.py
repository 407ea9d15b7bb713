"""What each process of test_parallel.py and test_sharded_checkpoint.py runs; pytest runs the same in one process."""

import json
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from shared.distributed import gather_values, is_main, join, rank, world_size
from shared.training import (
    Evaluation,
    RunOptions,
    TrainingConfig,
    TrainingInterrupted,
    TrainingResult,
    saving,
    train,
)
from shared.training.dtensor import full_tensor
from shared.training.loss_sum import split_metrics
from shared.training.sharded_checkpoint import HEADER
from shared.training.tests.parallel_cases import CASES, RANDOM_CASE, STEPS, Case, classify


def evaluation_loss(case: Case, model: nn.Module) -> dict[str, float]:
    value = case.loss(model, case.batch_at(0))
    return {"loss": float(split_metrics(value)[0].mean())}


def run(
    case: Case | str,
    parallel: str,
    folder: Path | None = None,
    resume: bool = False,
    *,
    loss=None,
    evaluate_every: int = 6,
    **changes,
) -> TrainingResult:
    """Train a case; `loss` and `changes` replace its own loss and settings."""
    case = CASES[case] if isinstance(case, str) else case
    torch.manual_seed(rank())  # each process draws other weights; those of the main one must be used
    model = case.make()
    settings = {"steps": STEPS, "learning_rate": 1e-2, "log_every": 1, "parallel": parallel} | case.settings | changes
    return train(
        model,
        case.batch_at,
        loss or case.loss,
        TrainingConfig(**settings),
        run=RunOptions(folder=folder, resume=resume),
        evaluation=Evaluation(case.evaluate or partial(evaluation_loss, case), every=evaluate_every),
        stages=case.stages,
    )


def named_weights(result: TrainingResult) -> dict[str, Tensor]:
    parts = {"model": result.model} | ({} if result.ema is None else {"average": result.ema})
    return {
        f"{part}.{name}": parameter.detach().contiguous().clone()
        for part, module in parts.items()
        for name, parameter in module.named_parameters()
    }


def train_cases(folder: Path, names: Sequence[str]) -> None:
    """Train each case in both ways, and save the results."""
    for name in names:
        for parallel in ("ddp", "fsdp"):
            result = run(name, parallel)
            weights = named_weights(result)
            sums = gather_values({key: value.double().sum().item() for key, value in weights.items()})
            assert all(other == sums[0] for other in sums), "the processes hold different weights"
            if is_main():
                save_file(weights, folder / f"{name} {parallel}.safetensors")
                (folder / f"{name} {parallel}.json").write_text(json.dumps(result.history))


# A line of the log every 4 steps, interrupted between two lines.
CUT = {"steps": 16, "log_every": 4}
CUT_AFTER = 10


class RecordingLoss:
    """A loss that records the rows of each training batch, and calls `act` at the end of a certain step."""

    def __init__(self, loss: Callable, step: int | None = None, act: Callable[[], None] = lambda: None):
        self.loss, self.step, self.act = loss, step, act
        self.rows: list[list[int]] = []

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        if model.training:
            self.rows.append(batch["rows"].tolist())
            if self.step and len(self.rows) == 2 * self.step:  # two batches per step
                self.act()
        return self.loss(model, batch)

    def save(self, folder: Path, when: str) -> None:
        (folder / f"rows {when} {rank()} of {world_size()}.json").write_text(json.dumps(self.rows))


def cut(folder: Path, parallel: str, case: Case | str = "vit") -> None:
    """Train until only the last process gets a signal: all must stop after the same step, and save."""
    last = rank() == world_size() - 1
    case_loss = (CASES[case] if isinstance(case, str) else case).loss
    loss = RecordingLoss(case_loss, CUT_AFTER if last else None, partial(signal.raise_signal, signal.SIGTERM))
    try:
        run(case, parallel, folder, loss=loss, **CUT)
    except TrainingInterrupted as interruption:
        assert f"after step {CUT_AFTER} of" in str(interruption), interruption
    else:
        raise AssertionError("no process reacted to the signal")
    loss.save(folder, "before")


def resume(folder: Path, parallel: str) -> TrainingResult:
    loss = RecordingLoss(CASES["vit"].loss)
    result = run("vit", parallel, folder, resume=True, loss=loss, **CUT)
    loss.save(folder, "after")
    draws = gather_values(torch.rand(1).item())
    assert len(set(draws)) == len(draws), "processes must not draw the same dropout"
    if is_main():
        save_file(named_weights(result), folder / "weights.safetensors")
    return result


def exact(folder: Path, parallel: str) -> None:
    """Train with randomness, once uninterrupted and once with an interruption: the weights must be bit-identical."""
    uncut = run(RANDOM_CASE, parallel, folder / "uncut", **CUT)
    cut(folder / "cut", parallel, RANDOM_CASE)
    resumed = run(RANDOM_CASE, parallel, folder / "cut", resume=True, **CUT)
    if is_main():
        for name, result in (("uncut", uncut), ("cut", resumed)):
            save_file(named_weights(result), folder / f"{name}.safetensors")


def traffic(folder: Path, parallel: str) -> None:
    """Count the collectives, by kind, in a run with one batch per step and in one with three."""
    counts = {}
    for accumulate in (1, 3):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            run("vit", parallel, steps=4, log_every=100, accumulate=accumulate)
        trace = folder / f"{rank()} {accumulate}.trace"
        folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(trace))
        counts[accumulate] = Counter(re.findall('"name": "gloo:([a-z_]+)"', trace.read_text()))
    (folder / f"{rank()}.json").write_text(json.dumps(counts))


def background(folder: Path, parallel: str) -> None:
    """Save after step 4 of 8 with a disk that takes until step 6, and after the last step with a slow disk."""
    write_checkpoint, step_6_done, written = saving.write_sharded_checkpoint, threading.Event(), []
    weights = {}

    def write(path: Path, *rest: object) -> None:
        if path.name.endswith("4"):
            assert step_6_done.wait(60), "training does not continue while a checkpoint is being written"
        else:
            time.sleep(0.3)
        written.append(path.name)
        write_checkpoint(path, *rest)

    def record_weights(model: nn.Module) -> dict[str, float]:
        if len(loss.rows) == 2 * 4:
            weights.update({name: full_tensor(tensor.detach()).clone() for name, tensor in model.named_parameters()})
        return {}

    loss = RecordingLoss(classify, 6, step_6_done.set)
    saving.write_sharded_checkpoint = write
    try:
        case = replace(CASES["vit"], evaluate=record_weights)
        result = run(case, parallel, folder, loss=loss, steps=8, checkpoint_every=4, ema_decay=None, evaluate_every=1)
    finally:
        saving.write_sharded_checkpoint = write_checkpoint
    assert written == ["checkpoint-00000004", "checkpoint-00000008"]
    assert (folder / written[-1] / HEADER).exists(), "it ends before its last checkpoint is finished"
    if is_main():
        save_file(weights, folder / "as of step 4.safetensors")
        save_file(named_weights(result), folder / "weights.safetensors")


ACTS = {"background": background, "cut": cut, "exact": exact, "traffic": traffic}


def main(folder: Path, command: str, arguments: Sequence[str]) -> None:
    torch.set_num_threads(1)
    join()
    if command == "train":
        train_cases(folder, arguments)
    else:
        for argument in arguments:  # such as cut/ddp, from-ddp/fsdp
            ACTS.get(argument.split("/")[0], resume)(folder / argument, argument.split("/")[1])
