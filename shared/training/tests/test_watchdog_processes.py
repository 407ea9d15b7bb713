"""Two processes, one of which dies, hangs, is slow, computes NaN, diverges or finds its disk full."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from shared.distributed.launch import launch, launch_function
from shared.training import NotFinite, ProcessLost, TrainingDiverged, load_weights, read_metrics, watchdog
from shared.training.sharded_checkpoint import list_sharded_checkpoints, step_of
from shared.training.tests import failing_job, parallel_cases, parallel_job
from shared.training.watchdog import report_lost_process

BOTH = ("ddp", "fsdp")
SURVIVABLE_FAILURES = {
    "disk full": ["fsdp"],
    "disk full at the end": ["ddp"],
    "is slow": BOTH,
    "computes NaN": BOTH,
    "diverges": BOTH,
}


@pytest.fixture(scope="module")
def survived(tmp_path_factory):
    """Return the folder and the stderr of failures after which both processes are still running."""
    folder = tmp_path_factory.mktemp("survived")
    failures = [f"{failure}/{parallel}" for failure, kinds in SURVIVABLE_FAILURES.items() for parallel in kinds]
    result = launch_function(2, failing_job.main, folder, failures)
    assert result.returncode == 0, result.stderr
    return folder, result.stderr


def error_of(text: str, failure: str, parallel: str, process: int) -> str:
    [message] = re.findall(rf"^{failure}, {parallel}, {process}: (.*)$", text, re.M)
    return message


@pytest.fixture
def single_process_error(tmp_path, monkeypatch):
    """Return the message with which the same run ends in one process."""
    for name in ("LAG", "PATIENCE"):
        monkeypatch.setattr(watchdog, name, getattr(watchdog, name))
    failing_job.detect_divergence_early()

    def message(failure: str, kind: type[Exception]) -> str:
        loss = failing_job.FailingLoss(failure, tmp_path)
        with pytest.raises(kind) as caught:
            parallel_job.run("vit", "ddp", tmp_path, loss=loss, **parallel_job.CUT)
        return str(caught.value)

    return message


@pytest.mark.parametrize(("failure", "parallel"), [("dies", "ddp"), ("dies", "fsdp"), ("hangs", "ddp")])
def test_a_lost_process_ends_the_run_with_a_message_and_a_usable_checkpoint(tmp_path, failure, parallel):
    if (failure, parallel) == ("dies", "ddp"):  # once with torchrun itself
        result = launch(2, Path(failing_job.__file__), str(tmp_path), f"{failure}/{parallel}")
    else:
        result = launch_function(2, failing_job.main, tmp_path, [f"{failure}/{parallel}"])
    folder = tmp_path / failure / parallel
    assert result.returncode != 0
    [newest, *_] = list_sharded_checkpoints(folder)
    assert step_of(newest) in (4, 8)
    message = error_of(result.stderr, failure, parallel, 0)
    assert message.startswith("ProcessLost: process 0 waited for another process, which has died or hangs")
    assert f"Step {step_of(newest)} is saved in {folder}; the same command with RESUME=1" in message
    if failure == "hangs":
        # Of several pending operations, some end by their own timeout and some by that of another one.
        assert "Timed out waiting 12000ms" in message or "timeout caused pair closure" in message

    history = parallel_job.run("vit", "ddp", folder, resume=True, **parallel_job.CUT).history
    expected = parallel_job.run("vit", "ddp", **parallel_job.CUT).history
    assert [line["step"] for line in history] == [line["step"] for line in expected]
    for key in ("loss", "evaluation/loss"):
        values, expected_values = (
            torch.tensor([line[key] for line in lines if key in line]) for lines in (history, expected)
        )
        torch.testing.assert_close(values, expected_values, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [::1]:1234. Further words",
        "Application timeout caused pair closure",
    ],
    ids=["closed", "timeout"],
)
def test_the_error_of_a_broken_collective_becomes_a_message(tmp_path, monkeypatch, text):
    monkeypatch.setattr(watchdog, "world_size", lambda: 2)
    expected_error = pytest.raises(
        ProcessLost,
        match=r"\((Connection closed by peer \[::1\]:1234|Application .* closure)\)\. There is no checkpoint",
    )
    with expected_error, report_lost_process(tmp_path):
        raise RuntimeError(text)
    with pytest.raises(ProcessLost, match="Nothing was saved"), report_lost_process(None):
        raise torch.distributed.DistStoreError("the first process is gone")
    # Every other error is the program's own.
    with pytest.raises(RuntimeError) as caught, report_lost_process(tmp_path):
        raise RuntimeError("shapes")
    assert type(caught.value) is RuntimeError


def test_all_processes_report_a_full_disk_and_earlier_checkpoints_remain(survived):
    folder, text = survived
    for failure, parallel in (("disk full", "fsdp"), ("disk full at the end", "ddp")):
        for process in (0, 1):
            assert re.match(
                r"CourseError: cannot write .*checkpoint-00000012.*: (File exists|Is a directory).*RESUME=1$",
                error_of(text, failure, parallel, process),
            )
        checkpoints = list_sharded_checkpoints(folder / failure / parallel)
        assert [step_of(path) for path in checkpoints] == [8, 4]


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
def test_nan_in_one_process_stops_all_and_saves_the_evidence(survived, single_process_error, parallel):
    folder, text = survived
    expected = single_process_error("computes NaN", NotFinite)
    assert "stopped at step 10: the loss is nan" in expected
    assert "gradient that is not finite is that of class_token" in expected
    evidence = folder / "computes NaN" / parallel / "not-finite"
    for process in (0, 1):
        message = error_of(text, "computes NaN", parallel, process)
        assert message.startswith(f"NotFinite: {expected.split(' The batch')[0]}")
        assert f"The batch (number 19) and the state before this step are in {evidence}" in message
    batch = load_file(evidence / "batch.safetensors")
    assert torch.equal(batch["batch.images"], parallel_cases.images(19)["images"])  # the rows of all processes
    # The state is the one before the bad step: the weights after nine good ones.
    assert step_of(list_sharded_checkpoints(evidence)[0]) == 9
    model = load_weights(parallel_cases.SmallVisionTransformer(), evidence)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize("parallel", BOTH)
def test_divergence_in_one_process_stops_all_and_names_the_same_parameter_as_a_single_process(
    survived, single_process_error, parallel
):
    folder, text = survived
    pattern = r"has grown most is (\S+): ([\d.]+) times its norm after step 8"
    expected = re.search(pattern, single_process_error("diverges", TrainingDiverged))
    for process in (0, 1):
        message = error_of(text, "diverges", parallel, process)
        start = "TrainingDiverged: training stopped at step 13: for 3 steps the loss has been more than 10"
        assert message.startswith(start)
        match = re.search(pattern, message)
        assert match[1] == expected[1] and float(match[2]) == pytest.approx(float(expected[2]), rel=0.02)
    evidence = folder / "diverges" / parallel / "diverged"
    batch = load_file(evidence / "batch.safetensors")
    assert torch.equal(batch["batch.rows"], parallel_cases.images(20)["rows"])
    assert step_of(list_sharded_checkpoints(evidence)[0]) == 12


def test_only_the_newest_two_checkpoints_are_kept(survived):
    folder, _ = survived
    run = folder / "is slow" / "ddp"
    assert [step_of(path) for path in list_sharded_checkpoints(run)] == [12, 8]
    header = json.loads((list_sharded_checkpoints(run)[0] / "training.json").read_text())
    assert header["training"]["step"] == 12
