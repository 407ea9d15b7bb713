import math
import random
import re
import signal

import numpy as np
import pytest
import torch
from torch import nn

from shared.errors import CourseError
from shared.training import (
    Batches,
    Evaluation,
    NotFinite,
    RunOptions,
    TrainingConfig,
    TrainingInterrupted,
    load_weights,
    read_metrics,
    train,
)
from shared.training.loop import usable_device

INPUTS = torch.randn(96, 5, generator=torch.Generator().manual_seed(1))


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.GELU(), nn.Dropout(0.3), nn.Linear(8, 8), nn.Linear(8, 1))


def loss(model, batch):
    error = (model(batch) - batch.sum(-1, keepdim=True)).square().mean()
    return error, {"root": error.detach().sqrt()}


def augment(batch, generator):
    return batch + 0.1 * torch.randn(batch.shape, generator=generator)


def batches() -> Batches:
    return Batches(INPUTS, batch_size=8, seed=2, augment=augment)


def evaluate(model):
    # An evaluation may draw random numbers without changing the training.
    torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
    return {"error": (model(INPUTS) - INPUTS.sum(-1, keepdim=True)).square().mean().item()}


def config(**changes) -> TrainingConfig:
    settings = {"steps": 24, "learning_rate": 1e-2, "accumulate": 2, "ema_decay": 0.9, "warmup_steps": 3}
    return TrainingConfig(**(settings | {"log_every": 5, "checkpoint_every": 8} | changes))


class CutAt:
    """A loss that calls `action` once, in the middle of a certain step."""

    def __init__(self, step: int, action, accumulate: int = 2):
        self.calls_left, self.action = step * accumulate - 1, action

    def __call__(self, model, batch):
        if self.calls_left == 0:
            self.action()
        self.calls_left -= 1
        return loss(model, batch)


def run(folder=None, loss=loss, resume=False, settings=None, evaluate_every=6, tokens_per_step=None):
    return train(
        network(),
        batches(),
        loss,
        settings or config(),
        run=RunOptions(folder=folder, resume=resume, tokens_per_step=tokens_per_step),
        evaluation=Evaluation(evaluate, every=evaluate_every),
    )


def without_times(history):
    return [{key: value for key, value in line.items() if key not in ("seconds", "memory_mb")} for line in history]


def assert_same_run(folder, result, uncut):
    for model, expected in ((result.model, uncut.model), (result.ema, uncut.ema)):
        for name, value in model.state_dict().items():
            assert torch.equal(value, expected.state_dict()[name]), name
    assert without_times(result.history) == without_times(uncut.history)
    assert read_metrics(folder / "metrics.jsonl") == result.history


@pytest.mark.parametrize(
    ("step", "optimizer"), [(1, "adamw"), (5, "muon"), (8, "adamw"), (13, "sgd"), (16, "muon"), (23, "adamw")]
)
def test_an_interrupted_run_reaches_bit_identical_weights(tmp_path, step, optimizer):
    settings = config(optimizer=optimizer)
    uncut = run(settings=settings)
    number = signal.SIGTERM if step % 2 else signal.SIGINT
    cut = CutAt(step, lambda: signal.raise_signal(number))
    with pytest.raises(TrainingInterrupted, match=f"after step {step} of 24.*RESUME=1"):
        run(tmp_path, cut, settings=settings)
    torch.rand(11)
    assert_same_run(tmp_path, run(tmp_path, resume=True, settings=settings), uncut)


def test_a_run_cut_twice_reaches_bit_identical_weights(tmp_path):
    uncut = run()
    for step, resume in ((4, False), (3, True)):
        with pytest.raises(TrainingInterrupted):
            run(tmp_path, CutAt(step, lambda: signal.raise_signal(signal.SIGTERM)), resume)
    assert_same_run(tmp_path, run(tmp_path, resume=True), uncut)


@pytest.mark.parametrize("step", [3, 9, 16, 22])
def test_a_run_that_dies_without_saving_continues_from_its_last_checkpoint(tmp_path, step):
    def die():
        raise RuntimeError("power failure")

    uncut = run()
    with pytest.raises(RuntimeError, match="power failure"):
        run(tmp_path, CutAt(step, die))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 22, "lo')  # an incomplete line
    assert_same_run(tmp_path, run(tmp_path, resume=True), uncut)


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    uncut = run(tmp_path)
    assert_same_run(tmp_path, run(tmp_path, resume=True), uncut)


def test_without_resume_a_run_starts_again(tmp_path):
    run(tmp_path, settings=config(steps=9))
    assert_same_run(tmp_path, run(tmp_path), run())


def test_signal_handlers_are_restored(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run(tmp_path, settings=config(steps=3))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with pytest.raises(TrainingInterrupted):
        run(tmp_path, CutAt(1, lambda: signal.raise_signal(signal.SIGINT)))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    def press_twice():
        signal.raise_signal(signal.SIGINT)
        while signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            pass  # Python handles signals between two instructions; two signals at once would count as one
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, CutAt(2, press_twice))
    finally:
        signal.signal(signal.SIGINT, before)


def test_evaluating_more_often_changes_no_weight():
    def noisy_loss(model, batch):
        value, metrics = loss(model, batch)
        return value * (1 + random.random() + np.random.rand()), metrics  # noqa: NPY002 – as third-party code may

    rarely, often = run(loss=noisy_loss, evaluate_every=None), run(loss=noisy_loss, evaluate_every=1)
    assert torch.equal(rarely.model[0].weight, often.model[0].weight)


def test_accumulated_batches_equal_one_large_batch():
    model, twin = network(), network()
    for module in (model, twin):
        module[3].p = 0.0
    settings = {"steps": 6, "learning_rate": 1e-2}
    train(model, Batches(INPUTS, batch_size=24, seed=0), loss, TrainingConfig(**settings))
    train(twin, Batches(INPUTS, batch_size=6, seed=0), loss, TrainingConfig(accumulate=4, **settings))
    torch.testing.assert_close(model.state_dict(), twin.state_dict(), rtol=1e-4, atol=1e-6)


def test_the_gradient_is_clipped_to_clip_norm():
    moves = {}
    for clip_norm in (None, 0.01):
        model = nn.Linear(5, 1, bias=False)
        before = model.weight.detach().clone()
        settings = TrainingConfig(1, 1.0, "sgd", 0.0, (0.0, 0.0), "constant", clip_norm=clip_norm, log_every=1)
        history = train(model, lambda k: INPUTS, loss, settings).history
        moves[clip_norm] = (model.weight - before).norm().item(), history[0]["gradient_norm"]
    assert moves[None][0] == pytest.approx(moves[None][1], rel=1e-4)
    assert moves[0.01][0] == pytest.approx(0.01, rel=1e-3)
    assert moves[0.01][1] > 0.1  # the log has the norm before clipping


def test_the_log_holds_means_since_its_last_line():
    losses = []

    def recorded_loss(model, batch):
        value, metrics = loss(model, batch)
        losses.append(value.item())
        return value, metrics

    history = run(loss=recorded_loss).history
    lines = [line for line in history if "loss" in line]
    assert [line["step"] for line in lines] == [5, 10, 15, 20, 24]
    assert lines[0]["loss"] == pytest.approx(sum(losses[:10]) / 10)
    assert lines[-1]["loss"] == pytest.approx(sum(losses[40:]) / 8)
    assert lines[0]["root"] == pytest.approx(sum(map(math.sqrt, losses[:10])) / 10, rel=1e-5)
    assert [line["step"] for line in history if "evaluation/error" in line] == [6, 12, 18, 24]


def test_the_learning_rate_follows_the_schedule():
    lines = [line for line in run(settings=config(log_every=1)).history if "learning_rate" in line]
    assert [line["learning_rate"] for line in lines[:3]] == pytest.approx([1e-2 / 3, 2e-2 / 3, 1e-2])
    assert lines[-1]["learning_rate"] == pytest.approx(1e-2 * 0.5 * (1 + math.cos(math.pi * 20 / 21)))


def test_the_average_is_evaluated_and_both_models_can_be_loaded(tmp_path):
    result = run(tmp_path)
    assert result.history[-1]["evaluation/error"] == pytest.approx(evaluate(result.ema)["error"])
    for average, model in ((False, result.model), (True, result.ema)):
        loaded = load_weights(network(seed=9), tmp_path, average=average)
        assert torch.equal(loaded[0].weight, model[0].weight)
    assert not torch.equal(result.model[0].weight, result.ema[0].weight)


def test_a_gradient_from_before_the_run_is_discarded():
    model = network()
    model.requires_grad_(False)[5].requires_grad_(True)
    before = model[0].weight.clone()
    model[0].weight.grad = torch.ones_like(before)
    train(model, batches(), loss, config())
    assert torch.equal(model[0].weight, before)


def test_the_returned_model_is_in_evaluation_mode():
    assert not run().model.training


@pytest.mark.parametrize(
    ("options", "unit", "units_per_step"), [({"tokens_per_step": 1000}, "tokens", 1000), ({}, "samples", 16)]
)
def test_a_run_displays_its_speed_and_the_time_left(capsys, options, unit, units_per_step):
    run(**options)
    *_, last = capsys.readouterr().err.splitlines()
    pace = rf"0:00 left · ([\d.,]+) steps/s · ([\d,]+) {unit}/s · lr [\d.e-]+ · [\d,]+ MB"
    match = re.fullmatch(rf"training: step 24/24, loss [\d.]+, {pace}", last)
    steps, units = (float(number.replace(",", "")) for number in match.groups())
    assert units / steps == pytest.approx(units_per_step, rel=0.02)


def test_tensorboard_gets_the_same_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = run(tmp_path)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    scalars = [(event.step, event.value) for event in board.Scalars("loss")]
    expected = [(line["step"], pytest.approx(line["loss"], rel=1e-6)) for line in result.history if "loss" in line]
    assert scalars == expected


def test_bfloat16_trains_with_float32_weights():
    dtypes = []

    def recording_loss(model, batch):
        dtypes.append(model[0](batch).dtype)
        return loss(model, batch)

    result = run(loss=recording_loss, settings=config(precision="bfloat16"))
    assert set(dtypes) == {torch.bfloat16} and result.model[0].weight.dtype == torch.float32
    assert result.history[-1]["evaluation/error"] < evaluate(network())["error"]


def test_a_compiled_model_has_plain_names_in_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model: nn.Sequential(model))  # a wrapper, as torch.compile returns
    run(tmp_path, settings=config(compile=True, steps=3))
    load_weights(network(), tmp_path)


@pytest.mark.parametrize("where", ["loss", "gradient", "parameter", "batch"])
def test_a_run_that_is_not_finite_stops_and_saves_the_evidence(tmp_path, where):
    model = network()
    state = {"calls": 0}

    def failing_loss(model, batch):
        state["calls"] += 1
        value, metrics = loss(model, batch)
        if state["calls"] != 6:  # the second batch of the third step
            return value, metrics
        if where == "loss":
            return value / 0, metrics
        if where == "gradient":
            return value + (model[4].bias * 0).abs().sqrt().sum(), metrics  # √x has no derivative at zero
        return value, metrics

    def batch_at(index):
        batch = batches()(index)
        if where == "batch" and index == 5:
            batch[3, 1] = math.nan
        if where == "parameter" and index == 5:
            with torch.no_grad():
                model[1].bias[0] = math.inf
        return {"inputs": batch}

    def on_inputs(model, batch):
        return failing_loss(model, batch["inputs"])

    with pytest.raises(NotFinite) as caught:
        train(
            model,
            batch_at,
            on_inputs,
            config(),
            run=RunOptions(folder=tmp_path),
        )
    message = str(caught.value)
    assert "stopped at step 3" in message and str(tmp_path / "not-finite") in message
    names = {
        "loss": "gradient that is not finite is that of 0.weight",
        "gradient": "gradient that is not finite is that of 4.bias",
        "parameter": "The parameter 1.bias",
        "batch": "at batch.inputs",
    }
    assert names[where] in message
    from safetensors.torch import load_file

    evidence = load_file(tmp_path / "not-finite" / "batch.safetensors")["batch.inputs"]
    index = 4 if where == "gradient" else 5
    assert torch.equal(evidence.nan_to_num(0.5), batch_at(index)["inputs"].nan_to_num(0.5))
    load_weights(network(), tmp_path / "not-finite")


def test_a_device_that_does_not_exist_is_named():
    if not torch.cuda.is_available():
        with pytest.raises(CourseError, match="'cuda' was requested, but this machine has"):
            usable_device("cuda")
    with pytest.raises(CourseError, match="'quantum'"):
        usable_device("quantum")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"optimizer": "lion"}, "optimizer is 'lion'; choose one of adamw, muon, sgd"),
        ({"schedule": "linear"}, "schedule is 'linear'; choose one of constant, cosine, wsd"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"warmup_steps": 25}, "between 0 and steps = 24"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"accumulate": 0}, "accumulate is 0"),
    ],
)
def test_invalid_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)
