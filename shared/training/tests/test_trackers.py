"""The tracker gets every line of the log, continues its run, changes no weight, and its failures end no training."""

import importlib.util
import json
import sys
import types

import pytest
import torch

from shared.errors import CourseError
from shared.training import RunOptions, read_metrics, train
from shared.training.tests.small_run import batches, config, loss, network


class FakeRun:
    """Record what a run at Weights & Biases gets; `failing` lets every call fail."""

    def __init__(self, options, failing=False):
        self.options, self.failing, self.lines, self.finished = options, failing, [], False

    def log(self, values, *, step):
        if self.failing:
            raise RuntimeError("the network is away")
        self.lines.append({"step": step} | values)

    def finish(self):
        self.finished = True


@pytest.fixture
def fake_wandb(monkeypatch):
    """The package replaced by a module that records its runs, and draws random numbers when it starts one."""
    module = types.ModuleType("wandb")
    module.runs, module.Error, module.failing = [], type("Error", (Exception,), {}), False

    def init(**options):
        torch.rand(3)
        module.runs.append(FakeRun(options, module.failing))
        return module.runs[-1]

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def run(folder, *, steps=6, tracker="wandb", resume=False, stop_at=None):
    def stopping_batches(index):
        if index == stop_at:
            raise KeyboardInterrupt
        return batches()(index)

    options = RunOptions(folder=folder, resume=resume, label="small", tracker=tracker)
    settings = config(steps=steps, log_every=1, checkpoint_every=2, accumulate=1, ema_decay=None)
    return train(network(), stopping_batches, loss, settings, run=options)


def test_the_tracker_gets_every_line_and_the_settings(fake_wandb, tmp_path):
    run(tmp_path / "group" / "run")
    (tracked,) = fake_wandb.runs
    assert tracked.lines == read_metrics(tmp_path / "group" / "run" / "metrics.jsonl") and len(tracked.lines) == 6
    assert tracked.finished and tracked.options["name"] == "small" and tracked.options["group"] == "group"
    assert tracked.options["config"]["steps"] == 6 and tracked.options["dir"] == str(tmp_path / "group" / "run")


def test_the_tracker_changes_no_weight(fake_wandb, tmp_path):
    one, two = run(tmp_path / "one").model, run(tmp_path / "two", tracker=None).model
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert len(fake_wandb.runs) == 1


def test_a_resumed_run_has_the_same_identity_and_a_new_one_another(fake_wandb, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop_at=4)
    run(tmp_path, resume=True)
    first, second = fake_wandb.runs
    assert first.options["id"] == second.options["id"] and second.options["resume"] == "allow"
    assert [line["step"] for line in first.lines + second.lines] == [1, 2, 3, 4, 5, 6]
    run(tmp_path, resume=True)
    assert len(fake_wandb.runs) == 2, "a finished run has nothing to track"
    run(tmp_path)
    assert fake_wandb.runs[-1].options["id"] != first.options["id"]


def test_a_failure_while_training_is_printed_once_and_ends_only_the_tracking(fake_wandb, tmp_path, capsys):
    fake_wandb.failing = True
    assert run(tmp_path).steps == 6 and len(read_metrics(tmp_path / "metrics.jsonl")) == 6
    assert capsys.readouterr().err.count("Weights & Biases failed (the network is away)") == 1


def test_a_tracker_that_does_not_start_is_one_line(fake_wandb, tmp_path):
    def refuse(**options):
        raise fake_wandb.Error("no API key")

    fake_wandb.init = refuse
    with pytest.raises(CourseError, match=r"no API key.*WANDB_MODE=offline"):
        run(tmp_path)


@pytest.mark.parametrize("module", [None, types.ModuleType("wandb")])
def test_a_missing_package_is_named_before_anything_is_written(module, monkeypatch, tmp_path):
    """A module without content is what Python imports when a folder has the package's name."""
    monkeypatch.setitem(sys.modules, "wandb", module)
    with pytest.raises(CourseError, match=r"requirements/trackers\.txt"):
        run(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(CourseError, match="tracker 'neptune' is unknown; expected wandb"):
        run(tmp_path / "run", tracker="neptune")


def test_a_tracker_needs_a_folder(fake_wandb):
    with pytest.raises(ValueError, match="needs the run's folder"):
        run(None)


@pytest.mark.skipif(not importlib.util.find_spec("wandb"), reason="pip install -r requirements/trackers.txt")
def test_the_real_package_writes_the_run_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    weights = run(tmp_path / "one", tracker=None).model.state_dict()
    tracked = run(tmp_path / "two").model.state_dict()
    assert all(torch.equal(weights[name], tracked[name]) for name in weights)
    (record,) = (tmp_path / "two" / "wandb").glob("offline-run-*/run-*.wandb")
    identity = (tmp_path / "two" / "wandb-run-id").read_text()
    assert record.name == f"run-{identity}.wandb" and b"gradient_norm" in record.read_bytes()
    assert json.loads((tmp_path / "two" / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 6
