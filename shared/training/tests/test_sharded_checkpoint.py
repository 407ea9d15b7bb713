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
from shared.training.sharded_checkpoint import HEADER, sharded_checkpoints
from shared.training.tests import parallel_job as job


def run_job(processes: int, folder: Path, command: str, *arguments: str) -> None:
    done = launch_function(processes, job.main, folder, command, arguments)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def whole():
    """The run that was never cut, in one process."""
    return job.run("vit", "ddp", **job.CUT)


@pytest.fixture(scope="module")
def cuts(tmp_path_factory) -> Path:
    """Folders ddp, fsdp and alone, each with a run that was stopped on its way: two by two processes, one by one."""
    folder = tmp_path_factory.mktemp("cuts") / "cut"
    run_job(2, folder.parent, "act", "cut/ddp", "cut/fsdp")
    (folder / "alone").mkdir()
    job.cut(folder / "alone", "ddp")
    return folder


def assert_reaches(folder: Path, whole, weights) -> None:
    history = read_metrics(folder / "metrics.jsonl")
    assert [line["step"] for line in history] == [line["step"] for line in whole.history]
    for key in ("loss", "accuracy", "evaluation/loss"):
        wanted = torch.tensor([line[key] for line in whole.history if key in line])
        given = torch.tensor([line[key] for line in history if key in line])
        torch.testing.assert_close(given, wanted, rtol=0, atol=1e-5)
    wanted = {key: value for key, value in job.named_weights(whole).items() if not key.endswith("key.bias")}
    torch.testing.assert_close({key: weights[key] for key in wanted}, wanted, rtol=0, atol=3e-4)


# Two processes go on as they were, and from what one has saved; four in either way from either.
GOES_ON = {2: [("ddp", "ddp"), ("fsdp", "fsdp"), ("alone", "fsdp")], 4: list(product(("ddp", "fsdp"), repeat=2))}


@pytest.fixture(scope="module", params=GOES_ON)
def resumed(request, cuts, tmp_path_factory):
    """How many processes have gone on, and a folder for each that they have gone on from."""
    processes, place = request.param, tmp_path_factory.mktemp("resumed")
    for saved, goes_on in GOES_ON[processes]:
        shutil.copytree(cuts / saved, place / f"from-{saved}" / goes_on)
    run_job(processes, place, "act", *(f"from-{saved}/{goes_on}" for saved, goes_on in GOES_ON[processes]))
    return processes, [place / f"from-{saved}" / goes_on for saved, goes_on in GOES_ON[processes]]


def test_any_number_of_processes_goes_on_from_what_others_saved(resumed, whole):
    for folder in resumed[1]:
        weights = load_file(folder / "weights.safetensors")
        assert_reaches(folder, whole, weights)
        # What lies in the newest checkpoint is what the processes had in the end.
        for average, part in ((False, "model"), (True, "average")):
            model = load_weights(job.SmallVisionTransformer(), folder, average=average)
            for name, parameter in model.named_parameters():
                assert torch.equal(parameter, weights[f"{part}.{name}"]), name


def test_no_sample_is_seen_twice_or_lost_when_the_number_of_processes_changes(resumed):
    processes, folders = resumed
    for folder in folders:
        before = 1 if "alone" in folder.parent.name else 2
        seen = []
        for when, size in (("before", before), ("after", processes)):
            each = [json.loads((folder / f"rows {when} {rank} of {size}.json").read_text()) for rank in range(size)]
            seen += [list(chain(*rows)) for rows in zip(*each, strict=True)]
        assert seen == [job.images(number)["rows"].tolist() for number in range(2 * job.CUT["steps"])]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    run_job(2, folder, "act", *(f"{act}/{parallel}" for act in ("exact", "background") for parallel in ("ddp", "fsdp")))
    return folder


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_as_many_processes_as_before_reach_the_very_same_weights(two, parallel):
    """With dropout and everything else that is drawn."""
    folder = two / "exact" / parallel
    whole, cut = (load_file(folder / f"{name}.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(value, cut[name]) for name, value in whole.items())
    lines = [read_metrics(folder / name / "metrics.jsonl") for name in ("whole", "cut")]
    for line in chain(*lines):
        for measured in ("seconds", "memory_mb", "slowdown", "slowest_process"):  # what clock and machine decide
            line.pop(measured, None)
    assert lines[0] == lines[1]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_training_goes_on_while_a_checkpoint_is_written_as_it_was(two, parallel):
    folder = two / "background" / parallel
    kept, end = load_file(folder / "as of step 4.safetensors"), load_file(folder / "weights.safetensors")
    for step, weights in ((4, kept), (8, {name.removeprefix("model."): value for name, value in end.items()})):
        model = load_weights(job.SmallVisionTransformer(), folder / f"checkpoint-0000000{step}")
        assert all(torch.equal(value, weights[name]) for name, value in model.named_parameters()), step
    assert not torch.equal(kept["head.weight"], end["model.head.weight"])


@pytest.mark.parametrize("saved", ["ddp", "fsdp"])
def test_one_process_goes_on_from_what_two_saved(tmp_path, cuts, whole, saved):
    shutil.copytree(cuts / saved, tmp_path / "run")
    assert_reaches(tmp_path / "run", whole, job.named_weights(job.resume(tmp_path / "run", "ddp")))


class Disk:
    """Stands in for the writing: notes when each begins and ends, takes a while, and refuses the step it is told to."""

    def __init__(self, refuses: int | None = None):
        self.refuses, self.notes = refuses, []

    def write(self, path, tensors, header, group):
        self.notes.append(f"begins {path.name[-1]}")
        time.sleep(0.2)
        self.notes.append(f"ends {path.name[-1]}")
        if path.name.endswith(str(self.refuses)):
            raise CourseError("the disk is full")


@pytest.mark.parametrize("refuses", [None, 1, 2])
def test_one_checkpoint_is_written_after_the_other_and_none_fails_unheard(tmp_path, monkeypatch, refuses):
    disk = Disk(refuses)
    monkeypatch.setattr(saving, "staged", lambda state: ({}, {}))
    monkeypatch.setattr(saving, "write_sharded", disk.write)
    saver = saving.Saver(tmp_path)
    saver.group = "as if there were several processes"
    heard = []
    for act in (lambda: saver.save(SimpleNamespace(step=1)), lambda: saver.save(SimpleNamespace(step=2)), saver.wait):
        try:
            act()
        except CourseError:
            heard.append(list(disk.notes))
            break
    everything = ["begins 1", "ends 1", "begins 2", "ends 2"]
    assert disk.notes == (everything[:2] if refuses == 1 else everything)
    assert heard == ([] if refuses is None else [everything[: 2 * refuses]])


def test_nothing_is_pickled_and_every_file_is_opened_by_plain_safetensors(cuts):
    [checkpoint] = sharded_checkpoints(cuts / "fsdp")
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
    assert header["sums"]["loss/count"] == 2 * 2  # two steps since the last line of the log, of two batches each


@pytest.mark.parametrize("damage", ["a byte", "cut short", "missing", "the header's step", "no header"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_serves(tmp_path, cuts, whole, damage, capsys):
    run = tmp_path / "run"
    shutil.copytree(cuts / "fsdp", run)
    older, newer = run / "checkpoint-00000010", run / "checkpoint-00000015"
    shutil.copytree(older, newer)
    shutil.copytree(older, run / "unfinished-checkpoint-00000020")  # by a process that was killed while it wrote
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
        (newer / HEADER).unlink()  # never finished, so there is nothing to say
    else:
        (newer / HEADER).write_text((newer / HEADER).read_text().replace('"step": 10', '"step": 15'))
    weights = job.named_weights(job.resume(run, "ddp"))
    assert_reaches(run, whole, weights)
    warning = capsys.readouterr().err
    if damage != "no header":
        name = HEADER if "header" in damage else shard.name
        assert (
            f"not as they were written are {name}" in warning
            and "going on from checkpoint-00000010, step 10" in warning
        )
    # The damaged one takes no other's place.
    aside = run / "damaged-checkpoint-00000015"
    assert aside.exists() == (damage != "no header") and sharded_checkpoints(run) == [older]
    assert not (run / "unfinished-checkpoint-00000020").exists()


def test_when_no_checkpoint_is_whole_all_are_named_and_none_is_touched(tmp_path, cuts):
    run = tmp_path / "run"
    shutil.copytree(cuts / "fsdp", run)
    shutil.copytree(run / "checkpoint-00000010", run / "checkpoint-00000015")
    (run / "checkpoint.safetensors").write_bytes(b"cut short")
    for checkpoint in sharded_checkpoints(run):
        next(checkpoint.glob("shard-*")).unlink()
    with pytest.raises(CourseError) as caught:
        job.resume(run, "ddp")
    message = str(caught.value)
    for name in ("checkpoint-00000015", "checkpoint-00000010", "checkpoint.safetensors"):
        assert f"{run / name} is damaged" in message and (run / name).exists()
    assert message.endswith("there is none before it to go back to; start without RESUME=1")


def test_a_run_goes_on_from_the_newest_whole_one_of_either_form(tmp_path, cuts, capsys):
    """One process had gone on after several, and what it saved is damaged; or several after one."""
    run = tmp_path / "run"
    shutil.copytree(cuts / "alone", run)
    (run / "previous-checkpoint.safetensors").write_bytes((run / "checkpoint.safetensors").read_bytes())
    (run / "checkpoint.safetensors").write_bytes(b"cut short")
    shutil.copytree(cuts / "ddp" / "checkpoint-00000010", run / "checkpoint-00000005")
    shutil.copytree(cuts / "ddp" / "checkpoint-00000010", run / "checkpoint-00000011")
    (run / "checkpoint-00000011" / HEADER).write_text("{}")
    shutil.copytree(run / "checkpoint-00000011", run / "checkpoint-of-mine")  # no name of ours: left alone
    assert job.resume(run, "ddp").steps == job.CUT["steps"]
    said = capsys.readouterr().err
    assert "checkpoint-00000011 is damaged" in said and "going on from previous-checkpoint.safetensors, step 10" in said
    assert sharded_checkpoints(run) == [run / "checkpoint-00000005"] and (run / "checkpoint-of-mine").exists()


def test_weights_are_not_quietly_read_from_an_older_checkpoint(tmp_path, cuts):
    run = tmp_path / "run"
    shutil.copytree(cuts / "fsdp", run)
    shutil.copytree(run / "checkpoint-00000010", run / "checkpoint-00000015")
    (run / "checkpoint-00000015" / HEADER).write_text("not even JSON")
    with pytest.raises(CourseError, match=r"damaged.*checkpoint-00000010, is whole: load that \(step 10\)"):
        load_weights(job.SmallVisionTransformer(), run)
    load_weights(job.SmallVisionTransformer(), run / "checkpoint-00000010")
    shutil.rmtree(run / "checkpoint-00000010")
    with pytest.raises(CourseError, match="no other checkpoint that is whole lies beside it, so train again"):
        load_weights(job.SmallVisionTransformer(), run)


def test_what_does_not_fit_is_refused(tmp_path, cuts):
    shutil.copytree(cuts / "ddp", tmp_path / "run")
    with pytest.raises(CourseError, match=r"other settings \(learning_rate: 0\.01 there, 0\.5 here\)"):
        job.run("vit", "ddp", tmp_path / "run", resume=True, **job.CUT, learning_rate=0.5)
    with pytest.raises(CourseError, match=r"does not fit this model:\n  .* missing: 0\.bias, 0\.weight"):
        load_weights(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / "run")


def test_without_resume_the_older_run_is_gone(tmp_path, cuts):
    run = tmp_path / "run"
    shutil.copytree(cuts / "ddp", run)
    for name in ("unfinished-checkpoint-00000011", "damaged-checkpoint-00000009"):
        shutil.copytree(run / "checkpoint-00000010", run / name)
    job.run("vit", "ddp", run, **{**job.CUT, "steps": 2})
    left = {path.name for path in run.iterdir() if not path.name.startswith("rows")}
    assert left == {"checkpoint.safetensors", "metrics.jsonl", "tensorboard"}
