"""What the loop does in an uninterrupted run."""

import math
import random
import re

import numpy as np
import pytest
import torch
from torch import nn

from shared.devices import usable_device
from shared.errors import CourseError
from shared.training import (
    Batches,
    RunOptions,
    TrainingConfig,
    load_weights,
    train,
)
from shared.training.tests.small_run import INPUTS, batches, config, evaluate, loss, network, run


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


def test_a_device_that_does_not_exist_is_named():
    if not torch.cuda.is_available():
        with pytest.raises(CourseError, match="'cuda' was requested, but this machine has"):
            usable_device("cuda")
    with pytest.raises(CourseError, match="'quantum'"):
        usable_device("quantum")
    with pytest.raises(CourseError, match="'meta' is no device"):
        usable_device("meta")
    with pytest.raises(CourseError, match="'quantum' is no device; expected cpu, cuda"):
        train(network(), batches(), loss, config(), run=RunOptions(device="quantum"))
