import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from shared.course import job_process
from shared.course.job_spec import ROOT, Job
from shared.course.jobs import run_jobs
from shared.errors import CourseError
from shared.training import RunOptions, TrainingConfig, train
from shared.training import lock as exclusive_lock
from shared.training.lock import in_use

HOLD = """
import sys
from pathlib import Path
from shared.training.lock import exclusive_lock
with exclusive_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process, which has the sole use of `tmp_path` and waits."""
    # Without the rest of the course, which takes seconds to load.
    path = {"PYTHONPATH": str(ROOT)}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD.replace("shared.training.lock", "exclusive_lock"), str(tmp_path)],
        cwd=ROOT / "shared" / "training",
        env=os.environ | path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"held\n"
    yield holder
    holder.kill()
    holder.communicate()


def test_a_second_process_is_refused_by_name(tmp_path, other):
    assert in_use(tmp_path)
    refused = pytest.raises(CourseError, match=f"another process is at work in {tmp_path}; let it finish")
    with refused, exclusive_lock.exclusive_lock(tmp_path, patience=0.0):
        pass
    other.kill()
    other.wait()
    assert not in_use(tmp_path)  # however the other one ended
    with exclusive_lock.exclusive_lock(tmp_path, patience=0.0):
        pass


def test_a_job_waits_for_one_that_is_still_saving(tmp_path, other, monkeypatch, capsys):
    monkeypatch.setattr("shared.course.jobs._start", lambda job: Done(job_process.main(job.folder)))
    (tmp_path / "job.json").write_text("{}")

    def meanwhile(_):
        other.kill()
        other.wait()

    monkeypatch.setattr(exclusive_lock.time, "sleep", meanwhile)
    job = Job("add", "shared.course.tests.job_functions:add", {"first": 1, "second": 2}, tmp_path)
    assert run_jobs([job])["add"]["sum"] == 3
    assert f"waiting for the process that is still at work in {tmp_path}" in capsys.readouterr().err
    assert not in_use(tmp_path)


class Done:
    """A process that has ended."""

    def __init__(self, returncode: int):
        self.returncode = returncode

    def poll(self) -> int:
        return self.returncode


def test_a_training_does_not_touch_a_folder_in_use(tmp_path, other):
    (tmp_path / "checkpoint.safetensors").write_text("of the other one")
    with pytest.raises(CourseError, match="another process is at work"):
        train(
            nn.Linear(2, 1),
            lambda number: torch.ones(4, 2),
            first_output,
            TrainingConfig(2, 0.1),
            run=RunOptions(folder=tmp_path),
        )
    assert (tmp_path / "checkpoint.safetensors").read_text() == "of the other one"


def first_output(model, batch):
    assert in_use(Path("."))
    return model(batch).square().mean()


def test_a_training_has_its_folder_for_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(
        nn.Linear(2, 1),
        lambda number: torch.ones(4, 2),
        first_output,
        TrainingConfig(2, 0.1),
        run=RunOptions(folder=tmp_path),
    )
    assert not in_use(tmp_path)


def test_a_process_may_nest_its_use(tmp_path):
    with exclusive_lock.exclusive_lock(tmp_path):
        with exclusive_lock.exclusive_lock(tmp_path / ".", patience=0.0):
            assert in_use(tmp_path)
        assert in_use(tmp_path)
    assert not in_use(tmp_path)


def test_where_there_are_no_locks_everybody_is_let_in(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with exclusive_lock.exclusive_lock(tmp_path, patience=0.0):
        assert not in_use(tmp_path)
