import json
import shutil
import time
from itertools import chain, product
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors
import torch
from safetensors.torch import load_file

from shared.distributed.launch import launch_function
from shared.errors import CourseError
from shared.training import load_weights, read_metrics, saving
from shared.training.sharded_checkpoint import HEADER, list_sharded_checkpoints
from shared.training.tests import parallel_cases
from shared.training.tests import parallel_job as job


def run_job(processes: int, folder: Path, command: str, *arguments: str) -> None:
    result = launch_function(processes, job.main, folder, command, arguments)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def uncut():
    """Return the result of an uninterrupted run in one process."""
    return job.run("vit", "ddp", **job.CUT)


@pytest.fixture(scope="module")
def cuts(tmp_path_factory) -> Path:
    """Return a folder with three interrupted runs: ddp and fsdp of two processes, single of one process."""
    folder = tmp_path_factory.mktemp("cuts") / "cut"
    run_job(2, folder.parent, "act", "cut/ddp", "cut/fsdp")
    (folder / "single").mkdir()
    job.cut(folder / "single", "ddp")
    return folder


def assert_same_result(folder: Path, uncut, weights) -> None:
    history = read_metrics(folder / "metrics.jsonl")
    assert [line["step"] for line in history] == [line["step"] for line in uncut.history]
    for key in ("loss", "accuracy", "evaluation/loss"):
        expected = torch.tensor([line[key] for line in uncut.history if key in line])
        values = torch.tensor([line[key] for line in history if key in line])
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-5)
    expected = {key: value for key, value in job.named_weights(uncut).items() if not key.endswith("key.bias")}
    torch.testing.assert_close({key: weights[key] for key in expected}, expected, rtol=0, atol=3e-4)


# (saved by, continued with), by the number of processes that continue.
CONTINUATIONS = {2: [("ddp", "ddp"), ("fsdp", "fsdp"), ("single", "fsdp")], 4: list(product(("ddp", "fsdp"), repeat=2))}


@pytest.fixture(scope="module", params=CONTINUATIONS)
def resumed(request, cuts, tmp_path_factory):
    """Return the number of processes that continued, and the folder of each continued run."""
    processes, root = request.param, tmp_path_factory.mktemp("resumed")
    names = [f"from-{saved}/{parallel}" for saved, parallel in CONTINUATIONS[processes]]
    for (saved, _), name in zip(CONTINUATIONS[processes], names, strict=True):
        shutil.copytree(cuts / saved, root / name)
    run_job(processes, root, "act", *names)
    return processes, [root / name for name in names]


def test_any_number_of_processes_continues_from_what_others_saved(resumed, uncut):
    for folder in resumed[1]:
        weights = load_file(folder / "weights.safetensors")
        assert_same_result(folder, uncut, weights)
        # The newest checkpoint holds the processes' final weights.
        for average, part in ((False, "model"), (True, "average")):
            model = load_weights(parallel_cases.SmallVisionTransformer(), folder, average=average)
            for name, parameter in model.named_parameters():
                assert torch.equal(parameter, weights[f"{part}.{name}"]), name


def test_no_sample_is_repeated_or_lost_when_the_number_of_processes_changes(resumed):
    processes, folders = resumed
    for folder in folders:
        before = 1 if "single" in folder.parent.name else 2
        batches = []
        for when, size in (("before", before), ("after", processes)):
            each = [json.loads((folder / f"rows {when} {rank} of {size}.json").read_text()) for rank in range(size)]
            batches += [list(chain(*rows)) for rows in zip(*each, strict=True)]
        assert batches == [parallel_cases.images(index)["rows"].tolist() for index in range(2 * job.CUT["steps"])]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two-processes")
    run_job(2, folder, "act", *(f"{act}/{parallel}" for act in ("exact", "background") for parallel in ("ddp", "fsdp")))
    return folder


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_the_same_number_of_processes_reaches_bit_identical_weights(two_processes, parallel):
    """With dropout and other randomness."""
    folder = two_processes / "exact" / parallel
    uncut, cut = (load_file(folder / f"{name}.safetensors") for name in ("uncut", "cut"))
    assert uncut.keys() == cut.keys() and all(torch.equal(value, cut[name]) for name, value in uncut.items())
    lines = [read_metrics(folder / name / "metrics.jsonl") for name in ("uncut", "cut")]
    for line in chain(*lines):
        for measured in (
            "seconds",
            "memory_mb",
            "slowdown",
            "slowest_process",
        ):  # depends on the machine
            line.pop(measured, None)
    assert lines[0] == lines[1]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_training_continues_while_a_checkpoint_is_written_and_does_not_alter_it(two_processes, parallel):
    folder = two_processes / "background" / parallel
    step_4, step_8 = load_file(folder / "as of step 4.safetensors"), load_file(folder / "weights.safetensors")
    for step, weights in ((4, step_4), (8, {name.removeprefix("model."): value for name, value in step_8.items()})):
        model = load_weights(parallel_cases.SmallVisionTransformer(), folder / f"checkpoint-0000000{step}")
        assert all(torch.equal(value, weights[name]) for name, value in model.named_parameters()), step
    assert not torch.equal(step_4["head.weight"], step_8["model.head.weight"])


@pytest.mark.parametrize("saved", ["ddp", "fsdp"])
def test_one_process_continues_from_what_two_saved(tmp_path, cuts, uncut, saved):
    shutil.copytree(cuts / saved, tmp_path / "run")
    assert_same_result(tmp_path / "run", uncut, job.named_weights(job.resume(tmp_path / "run", "ddp")))


class FakeDisk:
    """Replace the writing: record its start and end, take a while, and fail at the step `fails_at`."""

    def __init__(self, fails_at: int | None = None):
        self.fails_at, self.events = fails_at, []

    def write(self, path, tensors, header, group):
        self.events.append(f"starts {path.name[-1]}")
        time.sleep(0.2)
        self.events.append(f"ends {path.name[-1]}")
        if path.name.endswith(str(self.fails_at)):
            raise CourseError("the disk is full")


@pytest.mark.parametrize("fails_at", [None, 1, 2])
def test_checkpoints_are_written_one_after_the_other_and_every_failure_is_raised(tmp_path, monkeypatch, fails_at):
    disk = FakeDisk(fails_at)
    monkeypatch.setattr(saving, "stage_state", lambda state: ({}, {}))
    monkeypatch.setattr(saving, "write_sharded_checkpoint", disk.write)
    saver = saving.Saver(tmp_path)
    saver.group = "any group, as if there were several processes"
    events_at_failure = []
    for act in (lambda: saver.save(SimpleNamespace(step=1)), lambda: saver.save(SimpleNamespace(step=2)), saver.wait):
        try:
            act()
        except CourseError:
            events_at_failure.append(list(disk.events))
            break
    all_events = ["starts 1", "ends 1", "starts 2", "ends 2"]
    assert disk.events == (all_events[:2] if fails_at == 1 else all_events)
    assert events_at_failure == ([] if fails_at is None else [all_events[: 2 * fails_at]])


def test_nothing_is_pickled_and_safetensors_opens_every_file(cuts):
    [checkpoint] = list_sharded_checkpoints(cuts / "fsdp")
    files = sorted(path.name for path in checkpoint.iterdir())
    assert files == [f"shard-0000{n}-model-00001-of-00001.safetensors" for n in (1, 2)] + [HEADER]
    names = set()
    for path in checkpoint.glob("*.safetensors"):
        with safetensors.safe_open(path, framework="pt") as file:
            names |= set(file.keys())
    assert {"model.head.weight", "average.head.weight", "optimizer.head.weight.exp_avg"} <= names
    assert {"random.0.cpu", "random.1.cpu"} <= names
    header = json.loads((checkpoint / HEADER).read_text())["training"]
    assert header["step"] == job.CUT_AFTER and len(header["random"]) == 2
    assert header["sums"]["loss/count"] == 2  # two steps since the last line of the log


@pytest.mark.parametrize("damage", ["a byte", "cut short", "missing", "the header's step", "no header"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(tmp_path, cuts, uncut, damage, capsys):
    run = tmp_path / "run"
    shutil.copytree(cuts / "fsdp", run)
    older, newer = run / "checkpoint-00000010", run / "checkpoint-00000015"
    shutil.copytree(older, newer)
    shutil.copytree(older, run / "unfinished-checkpoint-00000020")  # of a process that was killed while writing
    shard = newer / "shard-00002-model-00001-of-00001.safetensors"
    content = bytearray(shard.read_bytes())
    if damage == "a byte":
        content[-40] ^= 1
        shard.write_bytes(content)
    elif damage == "cut short":
        shard.write_bytes(content[:-8])
    elif damage == "missing":
        shard.unlink()
    elif damage == "no header":
        (newer / HEADER).unlink()  # unfinished, so there is no warning
    else:
        (newer / HEADER).write_text((newer / HEADER).read_text().replace('"step": 10', '"step": 15'))
    weights = job.named_weights(job.resume(run, "ddp"))
    assert_same_result(run, uncut, weights)
    warning = capsys.readouterr().err
    if damage != "no header":
        name = HEADER if "header" in damage else shard.name
        assert f"not as they were written: {name}" in warning
        assert "continuing from checkpoint-00000010, step 10" in warning
    # The damaged one no longer blocks its name.
    aside = run / "damaged-checkpoint-00000015"
    assert aside.exists() == (damage != "no header") and list_sharded_checkpoints(run) == [older]
    assert not (run / "unfinished-checkpoint-00000020").exists()


def test_without_an_intact_checkpoint_all_are_named_and_none_is_changed(tmp_path, cuts):
    run = tmp_path / "run"
    shutil.copytree(cuts / "fsdp", run)
    shutil.copytree(run / "checkpoint-00000010", run / "checkpoint-00000015")
    (run / "checkpoint.safetensors").write_bytes(b"cut short")
    for checkpoint in list_sharded_checkpoints(run):
        next(checkpoint.glob("shard-*")).unlink()
    with pytest.raises(CourseError) as caught:
        job.resume(run, "ddp")
    message = str(caught.value)
    for name in ("checkpoint-00000015", "checkpoint-00000010", "checkpoint.safetensors"):
        assert f"{run / name} is damaged" in message and (run / name).exists()
    assert "no intact checkpoint is left: remove the folder" in message


def test_a_run_continues_from_the_newest_intact_checkpoint_of_either_format(tmp_path, cuts, capsys):
    """A single process continued a run of several or the reverse, and the newest checkpoints are damaged."""
    run = tmp_path / "run"
    shutil.copytree(cuts / "single", run)
    (run / "previous-checkpoint.safetensors").write_bytes((run / "checkpoint.safetensors").read_bytes())
    (run / "checkpoint.safetensors").write_bytes(b"cut short")
    shutil.copytree(cuts / "ddp" / "checkpoint-00000010", run / "checkpoint-00000005")
    shutil.copytree(cuts / "ddp" / "checkpoint-00000010", run / "checkpoint-00000011")
    (run / "checkpoint-00000011" / HEADER).write_text("{}")
    shutil.copytree(run / "checkpoint-00000011", run / "checkpoint-of-mine")  # renamed by a user: not touched
    assert job.resume(run, "ddp").steps == job.CUT["steps"]
    warning = capsys.readouterr().err
    assert "checkpoint-00000011 is damaged" in warning
    assert "continuing from previous-checkpoint.safetensors, step 10" in warning
    assert list_sharded_checkpoints(run) == [run / "checkpoint-00000005"] and (run / "checkpoint-of-mine").exists()


def test_weights_are_never_read_from_an_older_checkpoint_instead(tmp_path, cuts):
    run = tmp_path / "run"
    shutil.copytree(cuts / "fsdp", run)
    shutil.copytree(run / "checkpoint-00000010", run / "checkpoint-00000015")
    (run / "checkpoint-00000015" / HEADER).write_text("not even JSON")
    with pytest.raises(CourseError, match=r"damaged.*checkpoint-00000010, is intact: load that \(step 10\)"):
        load_weights(parallel_cases.SmallVisionTransformer(), run)
    load_weights(parallel_cases.SmallVisionTransformer(), run / "checkpoint-00000010")
    shutil.rmtree(run / "checkpoint-00000010")
    with pytest.raises(CourseError, match="no intact checkpoint lies beside it, so train again"):
        load_weights(parallel_cases.SmallVisionTransformer(), run)


def test_other_settings_and_other_models_are_refused(tmp_path, cuts):
    shutil.copytree(cuts / "ddp", tmp_path / "run")
    with pytest.raises(CourseError, match=r"other settings \(learning_rate: 0\.01 there, 0\.5 here\)"):
        job.run("vit", "ddp", tmp_path / "run", resume=True, **job.CUT, learning_rate=0.5)
    with pytest.raises(CourseError, match=r"does not fit this model:\n  .* missing: 0\.bias, 0\.weight"):
        load_weights(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / "run")


def test_without_resume_the_older_run_is_removed(tmp_path, cuts):
    run = tmp_path / "run"
    shutil.copytree(cuts / "ddp", run)
    for name in ("unfinished-checkpoint-00000011", "damaged-checkpoint-00000009"):
        shutil.copytree(run / "checkpoint-00000010", run / name)
    job.run("vit", "ddp", run, **{**job.CUT, "steps": 2})
    names = {path.name for path in run.iterdir() if not path.name.startswith("rows")}
    assert names == {"checkpoint.safetensors", "metrics.jsonl", "tensorboard"}
