"""What two processes do when one of them dies, hangs, is slow, computes NaN, explodes or finds its disk full."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from shared.distributed.launch import launch, launch_function
from shared.training import Exploded, NotFinite, ProcessLost, load_weights, lost_process, read_metrics
from shared.training.lost_process import lost_process_told
from shared.training.sharded_checkpoint import sharded_checkpoints, step_of
from shared.training.tests import failing_job, parallel_job

BOTH = ("ddp", "fsdp")
WAYS = {
    "meets a full disk": ["fsdp"],
    "meets a disk that is full at the end": ["ddp"],
    "is slow": BOTH,
    "computes NaN": BOTH,
    "explodes": BOTH,
}


@pytest.fixture(scope="module")
def survived(tmp_path_factory):
    """Failures after which both processes are still there: where they lie, and what was said of each."""
    folder = tmp_path_factory.mktemp("survived")
    failures = [f"{way}/{parallel}" for way, kinds in WAYS.items() for parallel in kinds]
    done = launch_function(2, failing_job.main, folder, failures)
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


def said(text: str, way: str, parallel: str, process: int) -> str:
    [found] = re.findall(rf"^{way}, {parallel}, {process}: (.*)$", text, re.M)
    return found


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """The message with which the same run ends in one process."""
    for name in ("LAG", "PATIENCE"):
        monkeypatch.setattr(failing_job.explosion, name, getattr(failing_job.explosion, name))
    failing_job.watch_closely()

    def message(way: str, kind: type[Exception]) -> str:
        with pytest.raises(kind) as caught:
            parallel_job.run("vit", "ddp", tmp_path, loss=failing_job.Failing(way, tmp_path), **parallel_job.CUT)
        return str(caught.value)

    return message


@pytest.mark.parametrize(("way", "parallel"), [("dies", "ddp"), ("dies", "fsdp"), ("hangs", "ddp")])
def test_a_lost_process_ends_the_run_with_a_message_and_a_checkpoint_that_resumes(tmp_path, way, parallel):
    if (way, parallel) == ("dies", "ddp"):  # once with torchrun itself
        done = launch(2, Path(failing_job.__file__), str(tmp_path), f"{way}/{parallel}")
    else:
        done = launch_function(2, failing_job.main, tmp_path, [f"{way}/{parallel}"])
    folder = tmp_path / way / parallel
    assert done.returncode != 0
    [newest, *_] = sharded_checkpoints(folder)
    assert step_of(newest) in (4, 8)
    message = said(done.stderr, way, parallel, 0)
    assert message.startswith("ProcessLost: process 0 waited in vain for another one, which has died or hangs")
    assert f"All up to step {step_of(newest)} is saved in {folder}, and the same command with RESUME=1" in message
    if way == "hangs":
        # Of several operations that are under way, some are ended by their own clock and some by a neighbor's.
        assert "Timed out waiting 12000ms" in message or "timeout caused pair closure" in message

    history = parallel_job.run("vit", "ddp", folder, resume=True, **parallel_job.CUT).history
    wanted = parallel_job.run("vit", "ddp", **parallel_job.CUT).history
    assert [line["step"] for line in history] == [line["step"] for line in wanted]
    for key in ("loss", "evaluation/loss"):
        given = torch.tensor([line[key] for line in history if key in line])
        torch.testing.assert_close(
            given, torch.tensor([line[key] for line in wanted if key in line]), rtol=0, atol=1e-5
        )


@pytest.mark.parametrize(
    "words",
    [
        "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [::1]:1234. Further words",
        "Application timeout caused pair closure",
    ],
    ids=["closed", "timeout"],
)
def test_what_a_broken_collective_says_is_turned_into_a_message(tmp_path, monkeypatch, words):
    monkeypatch.setattr(lost_process, "world_size", lambda: 2)
    lost = pytest.raises(
        ProcessLost, match=r"\((Connection closed by peer \[::1\]:1234|Application .* closure)\)\. No check"
    )
    with lost, lost_process_told(tmp_path):
        raise RuntimeError(words)
    with pytest.raises(ProcessLost, match="Nothing was saved"), lost_process_told(None):
        raise torch.distributed.DistStoreError("the first process is gone")
    # Any other error is the program's own.
    with pytest.raises(RuntimeError) as caught, lost_process_told(tmp_path):
        raise RuntimeError("shapes")
    assert type(caught.value) is RuntimeError


def test_a_disk_that_refuses_is_told_by_all_and_leaves_what_was_saved(survived):
    folder, text = survived
    for way, parallel in (("meets a full disk", "fsdp"), ("meets a disk that is full at the end", "ddp")):
        for process in (0, 1):
            assert re.match(
                r"CourseError: cannot write .*checkpoint-00000012.*: (File exists|Is a directory).*RESUME=1$",
                said(text, way, parallel, process),
            )
        assert [step_of(path) for path in sharded_checkpoints(folder / way / parallel)] == [8, 4]


@pytest.mark.parametrize("parallel", BOTH)
def test_a_slow_process_is_named_and_logged(survived, parallel):
    folder, text = survived
    warnings = re.findall(r"^warning: process (\d) on \S+ is slow: .* take ([\d.]+) times as long", text, re.M)
    assert len(warnings) == len(BOTH)
    assert all(process == "1" and float(factor) > 1.5 for process, factor in warnings)
    lines = [line for line in read_metrics(folder / "is slow" / parallel / "metrics.jsonl") if "loss" in line]
    assert [line["slowest_process"] for line in lines] == [1, 1, 1]
    assert lines[-1]["slowdown"] > 1.5


@pytest.mark.parametrize("parallel", BOTH)
def test_what_is_not_finite_in_one_process_stops_all_and_keeps_the_evidence(survived, alone, parallel):
    folder, text = survived
    wanted = alone("computes NaN", NotFinite)
    assert "stopped at step 10: the loss is nan" in wanted and "gradient that is not is that of class_token" in wanted
    evidence = folder / "computes NaN" / parallel / "not-finite"
    for process in (0, 1):
        message = said(text, "computes NaN", parallel, process)
        assert message.startswith(f"NotFinite: {wanted.split(' The batch')[0]}")
        assert f"The batch (number 19) and the state before this step are in {evidence}" in message
    batch = load_file(evidence / "batch.safetensors")
    assert torch.equal(batch["batch.images"], parallel_job.images(19)["images"])  # that of all processes
    # The state is the one before the bad step: weights of nine good ones.
    assert step_of(sharded_checkpoints(evidence)[0]) == 9
    model = load_weights(parallel_job.SmallVisionTransformer(), evidence)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize("parallel", BOTH)
def test_what_explodes_in_one_process_stops_all_and_names_the_parameter_that_one_process_would(
    survived, alone, parallel
):
    folder, text = survived
    wanted = alone("explodes", Exploded)
    named = re.search(r"has grown most is (\S+): ([\d.]+) times as large as after step 8", wanted)
    for process in (0, 1):
        message = said(text, "explodes", parallel, process)
        assert message.startswith("Exploded: training stopped at step 13: for 3 steps the loss has been more than 10")
        found = re.search(r"has grown most is (\S+): ([\d.]+) times as large as after step 8", message)
        assert found[1] == named[1] and float(found[2]) == pytest.approx(float(named[2]), rel=0.02)
    evidence = folder / "explodes" / parallel / "exploded"
    batch = load_file(evidence / "batch.safetensors")
    assert torch.equal(batch["batch.rows"], parallel_job.images(20)["rows"])
    assert step_of(sharded_checkpoints(evidence)[0]) == 12


def test_only_the_newest_two_checkpoints_are_kept(survived):
    folder, _ = survived
    run = folder / "is slow" / "ddp"
    assert [step_of(path) for path in sharded_checkpoints(run)] == [12, 8]
    header = json.loads((sharded_checkpoints(run)[0] / "training.json").read_text())
    assert header["training"]["step"] == 12
