"""The guards against divergence, NaN and slow processes; test_watchdog_processes.py tests all with two processes."""

import math
import random
import time

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from shared.training import (
    Batches,
    NotFinite,
    RunOptions,
    TrainingConfig,
    TrainingDiverged,
    load_weights,
    read_metrics,
    train,
)
from shared.training.parallel import Stopwatch
from shared.training.tests import small_run
from shared.training.watchdog import PATIENCE, DivergenceWatch, slow_process_warning, slowest_process

INPUTS = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
HEALTHY = [2.3 * 0.98**step for step in range(200)]


def stops_at(losses, factor: float | None = 10.0, history=()) -> int | None:
    """Return the index of the loss at which the watch stops the run, or None."""
    watch = DivergenceWatch(factor, history)
    return next((index for index, loss in enumerate(losses) if watch.has_diverged(loss)), None)


def test_a_loss_that_stays_above_ten_times_the_highest_stops_the_run():
    assert stops_at([*HEALTHY, *[23.1] * 100]) == 200 + PATIENCE - 1
    assert stops_at([*HEALTHY, *[22.9] * 100]) is None
    assert stops_at([*HEALTHY, *[2.4] * 100]) is None
    assert stops_at([*HEALTHY, *[4.7] * 100], factor=2.0) == 200 + PATIENCE - 1
    assert stops_at([*HEALTHY, *[1e9] * 100], factor=None) is None


@pytest.mark.parametrize("growth", [30.0, 1.5, 1.1, 1.04])
def test_unbounded_growth_stops_the_run_however_smooth(growth):
    index = stops_at([2.0] * 200 + [2.0 * growth**step for step in range(150)])
    # It grows to ten times what was before, and then on for PATIENCE steps.
    assert index == 200 + math.floor(math.log(10, growth) + 1) + PATIENCE - 1


def test_the_highest_is_that_of_the_whole_run():
    assert stops_at([50.0, *[0.1] * 1000, *[450.0] * 100]) is None
    assert stops_at([50.0, *[0.1] * 1000, *[501.0] * 100]) == 1001 + PATIENCE - 1


@pytest.mark.parametrize(
    "losses",
    {
        "a bad batch": [*HEALTHY, 1e6, *HEALTHY],
        "spikes that heal": [*HEALTHY, *[500.0] * (PATIENCE - 1), *HEALTHY, *[500.0] * (PATIENCE - 1), *HEALTHY],
        "a high start": [1e6, *HEALTHY, *[40.0] * 50],
        "a long rise": [0.7 * 1.01**step for step in range(600)],
        "near zero, then jumps": [*HEALTHY, *[1e-6] * 500, *[1e-2] * 50, *[1e-6] * 50],
        "a reward that is found late": [0.0] * 500 + [0.7] * 100,
        "a negative loss": [-700.0] * 200 + [600.0] * 100,
        "a summed loss": [550.0] * 200 + [5000.0] * 100,
        "a term that joins midway": [0.05] * 300 + [0.65] * 300,
    }.items(),
    ids=lambda case: case[0],
)
def test_healthy_runs_continue(losses):
    assert stops_at(losses[1]) is None


def test_a_bad_batch_does_not_count_towards_the_highest():
    assert stops_at([*HEALTHY, 1e6, *HEALTHY, *[100.0] * 50]) == 2 * len(HEALTHY) + PATIENCE


def test_a_noisy_run_continues():
    generator = random.Random(0)
    assert stops_at([generator.lognormvariate(0.0, 1.5) for _ in range(20_000)]) is None


def test_a_resumed_run_rebuilds_its_record_from_the_log():
    history = [{"step": step, "loss": 2.3} for step in range(10, 210, 10)]
    diverging = [{"step": 210, "loss": 5e4}, {"step": 220, "evaluation/error": 1.0}, {"step": 230, "loss": None}]
    assert stops_at([5e4] * 100, history=history) == PATIENCE - 1
    # Losses that were already too high are not part of the record.
    assert stops_at([5e4] * 100, history=history + diverging) == PATIENCE - 1
    assert stops_at([5e4] * 100) is None  # without a record there is no reference


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


class Diverging:
    """A regression that diverges through one parameter: from a certain batch on, one bias is pushed away."""

    def __init__(self, model: nn.Module, first: int):
        self.model, self.first, self.batches = model, first, Batches(INPUTS, batch_size=8, seed=0)

    def batch_at(self, index: int):
        if index >= self.first:
            with torch.no_grad():
                self.model[2].bias += 30.0
        return self.batches(index)

    @staticmethod
    def loss(model, batch):
        return (model(batch) - batch.sum(-1, keepdim=True)).square().mean()


def run(folder=None, **changes):
    model = network()
    diverging = Diverging(model, 240)
    settings = {"steps": 400, "learning_rate": 1e-3, "accumulate": 2, "checkpoint_every": 50} | changes
    return train(model, diverging.batch_at, diverging.loss, TrainingConfig(**settings), run=RunOptions(folder=folder))


def test_a_diverged_run_stops_and_saves_the_evidence(tmp_path):
    with pytest.raises(TrainingDiverged) as caught:
        run(tmp_path)
    message = str(caught.value)
    first_step = 120  # steps of two batches
    expected = f"stopped at step {first_step + PATIENCE}: for {PATIENCE} steps the loss has been more than 10 times"
    assert expected in message
    assert "has grown most is 2.bias" in message and "its norm after step 120" in message
    assert f"(number {2 * first_step}) and the state now are in {tmp_path / 'diverged'}" in message
    assert "divergence_factor=None" in message and "\n" not in message
    batch = load_file(tmp_path / "diverged" / "batch.safetensors")["batch"]
    assert torch.equal(batch, Batches(INPUTS, batch_size=8, seed=0)(2 * first_step))
    assert load_weights(network(), tmp_path / "diverged")[2].bias.item() > 1000
    # The last regular checkpoint is still there, and the log shows the rise.
    assert abs(load_weights(network(), tmp_path)[2].bias.item()) < 1
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == list(range(10, 140, 10))


def test_a_resumed_run_detects_divergence_after_the_cut(tmp_path):
    model = network()
    diverging = Diverging(model, 2 * 160)

    def cut(index: int):
        raise KeyboardInterrupt

    config = TrainingConfig(400, 1e-3, accumulate=2, checkpoint_every=50)
    with pytest.raises(KeyboardInterrupt):
        train(
            network(),
            lambda index: (cut if index == 310 else diverging.batches)(index),
            diverging.loss,
            config,
            run=RunOptions(folder=tmp_path),
        )
    with pytest.raises(TrainingDiverged, match=f"stopped at step {160 + PATIENCE}"):
        train(model, diverging.batch_at, diverging.loss, config, run=RunOptions(folder=tmp_path, resume=True))


def test_without_a_folder_there_is_only_the_message():
    with pytest.raises(TrainingDiverged, match=r"has grown most is 2\.bias") as caught:
        run()
    assert "number" not in str(caught.value)


def test_the_guard_can_be_turned_off():
    assert run(divergence_factor=None).steps == 400


def test_the_guard_changes_no_weight(tmp_path):
    settings = TrainingConfig(120, 1e-2, divergence_factor=None), TrainingConfig(120, 1e-2, divergence_factor=1.01)
    results = [train(network(), Batches(INPUTS, batch_size=8, seed=0), Diverging.loss, each) for each in settings]
    assert torch.equal(results[0].model[0].weight, results[1].model[0].weight)


@pytest.mark.parametrize("factor", [1.0, 0.5, -3.0, float("nan")])
def test_an_invalid_factor_is_refused(factor):
    with pytest.raises(ValueError, match=r"divergence_factor is .*; it must be above 1, or None"):
        TrainingConfig(10, 0.1, divergence_factor=factor)


def test_the_stopwatch_excludes_pauses(monkeypatch):
    now = iter([0.0, 2.0, 5.0, 6.0, 10.0, 11.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    watch = Stopwatch()
    watch.resume()  # outside of its context, as during an evaluation: nothing is measured
    with watch:
        watch.pause()  # 2 seconds of work, then 3 of waiting
        watch.resume()  # 1 second of work
    with watch:
        pass  # 1 second more
    assert watch.pop() == 4.0 and watch.pop() == 0.0


def test_the_slowest_process_is_compared_with_the_median_of_the_others():
    assert slowest_process([1.0, 6.0, 2.0, 3.0]) == (1, 3.0)
    assert slowest_process([4.0, 1.0]) == (0, 4.0)


def test_a_slow_process_is_named_when_it_matters():
    hosts = ["a", "b", "c"]
    message = slow_process_warning([1.0, 3.0, 1.0], hosts, seconds=4.0)
    assert "process 1 on b is slow" in message and "3.0 times" in message and "50% of the time" in message
    assert slow_process_warning([1.0, 1.4, 1.0], hosts, seconds=1.5) is None  # ordinary differences between machines
    assert slow_process_warning([0.1, 0.3, 0.1], hosts, seconds=4.0) is None  # a small part of the step


@pytest.mark.parametrize("where", ["loss", "gradient", "parameter", "batch"])
def test_a_run_that_is_not_finite_stops_and_saves_the_evidence(tmp_path, where):
    model = small_run.network()
    state = {"calls": 0}

    def failing_loss(model, batch):
        state["calls"] += 1
        value, metrics = small_run.loss(model, batch)
        if state["calls"] != 6:  # the second batch of the third step
            return value, metrics
        if where == "loss":
            return value / 0, metrics
        if where == "gradient":
            return value + (model[4].bias * 0).abs().sqrt().sum(), metrics  # √x has no derivative at zero
        return value, metrics

    def batch_at(index):
        batch = small_run.batches()(index)
        if where == "batch" and index == 5:
            batch[3, 1] = math.nan
        if where == "parameter" and index == 5:
            with torch.no_grad():
                model[1].bias[0] = math.inf
        return {"inputs": batch}

    def on_inputs(model, batch):
        return failing_loss(model, batch["inputs"])

    with pytest.raises(NotFinite) as caught:
        train(model, batch_at, on_inputs, small_run.config(), run=RunOptions(folder=tmp_path))
    message = str(caught.value)
    assert "stopped at step 3" in message and str(tmp_path / "not-finite") in message
    names = {
        "loss": "gradient that is not finite is that of 0.weight",
        "gradient": "gradient that is not finite is that of 4.bias",
        "parameter": "The parameter 1.bias",
        "batch": "at batch.inputs",
    }
    assert names[where] in message
    evidence = load_file(tmp_path / "not-finite" / "batch.safetensors")["batch.inputs"]
    index = 4 if where == "gradient" else 5
    assert torch.equal(evidence.nan_to_num(0.5), batch_at(index)["inputs"].nan_to_num(0.5))
    load_weights(small_run.network(), tmp_path / "not-finite")
