"""What two processes do when one of them dies, hangs, is slow, computes NaN or finds its disk full."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch

from shared.distributed.launch import launch
from shared.training import load_weights, read_metrics
from shared.training.sharded_checkpoint import sharded_checkpoints, step_of

JOB = Path(__file__).with_name("parallel_job.py")
specification = importlib.util.spec_from_file_location("parallel_job", JOB)
job = importlib.util.module_from_spec(specification)
specification.loader.exec_module(job)


def fail(folder: Path, *ways: str):
    """Let two processes meet with these failures, one after the other."""
    return launch(2, JOB, str(folder), "act", *(f"fail/{way}" for way in ways))


@pytest.fixture(scope="module")
def survived(tmp_path_factory):
    """Failures after which both processes are still there: where, and what was said of each."""
    folder = tmp_path_factory.mktemp("survived")
    done = fail(folder, "disk", "slow", "nan")
    assert done.returncode == 0, done.stderr
    return folder / "fail", done.stderr


@pytest.mark.parametrize("way", ["dies", "hangs"])
def test_a_lost_process_ends_the_run_with_a_message_and_a_checkpoint_that_resumes(tmp_path, way):
    done = fail(tmp_path, way)
    folder = tmp_path / "fail" / way
    assert done.returncode != 0
    [newest, *_] = sharded_checkpoints(folder)
    assert step_of(newest) in (4, 8)
    said = re.search("^ProcessLost in 0: (.*)$", done.stderr, flags=re.M)[1]
    assert "process 0 waited in vain for another one, which has died or hangs" in said
    assert f"All up to step {step_of(newest)} is saved in {folder}, and the same command with RESUME=1" in said
    if way == "hangs":
        assert "Timed out waiting 12000ms" in said

    history = job.run("vit", "ddp", folder, resume=True, **job.CUT).history
    wanted = job.run("vit", "ddp", **job.CUT).history
    assert [line["step"] for line in history] == [line["step"] for line in wanted]
    for key in ("loss", "evaluation/loss"):
        given = torch.tensor([line[key] for line in history if key in line])
        torch.testing.assert_close(
            given, torch.tensor([line[key] for line in wanted if key in line]), rtol=0, atol=1e-5
        )


def test_a_disk_that_refuses_is_told_by_all_and_leaves_what_was_saved(survived):
    folder, said = survived
    for process in (0, 1):
        assert re.search(
            rf"^CourseError in {process}: cannot write \S*checkpoint-00000012: File exists.*RESUME=1$", said, re.M
        )
    assert [step_of(path) for path in sharded_checkpoints(folder / "disk")] == [8, 4]


def test_a_slow_process_is_named_and_logged(survived):
    folder, said = survived
    [warning] = re.findall(r"^warning: process 1 on \S+ is slow: .* take ([\d.]+) times as long", said, re.M)
    assert float(warning) > 1.5
    lines = [line for line in read_metrics(folder / "slow" / "metrics.jsonl") if "loss" in line]
    assert [line["slowest_process"] for line in lines] == [1, 1, 1]
    assert lines[-1]["slowdown"] > 1.5


def test_what_is_not_finite_in_one_process_stops_all_and_keeps_the_evidence(survived):
    folder, said = survived
    for process in (0, 1):
        assert re.search(rf"^NotFinite in {process}: training stopped at step 10: the loss is nan", said, re.M)
    evidence = folder / "nan" / "not-finite"
    assert "batch (number 19)" in said and (evidence / "batch.safetensors").exists()
    # The state is the one before the bad step: weights of nine good ones.
    assert step_of(sharded_checkpoints(evidence)[0]) == 9
    model = load_weights(job.SmallVisionTransformer(), evidence)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_only_the_newest_two_checkpoints_are_kept(survived):
    folder, _ = survived
    assert [step_of(path) for path in sharded_checkpoints(folder / "slow")] == [12, 8]
    header = json.loads((sharded_checkpoints(folder / "slow")[0] / "training.json").read_text())
    assert header["training"]["step"] == 12
