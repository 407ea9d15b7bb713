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
from shared.course.tests.job_functions import CONTEXT_ARGUMENTS
from shared.errors import CourseError
from shared.training import RunOptions, TrainingConfig, lock, train
from shared.training.lock import is_locked

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
    """Return another process, which holds the lock on `tmp_path`."""
    # It imports only the module itself, because the rest of the package takes seconds to load.
    path = {"PYTHONPATH": str(ROOT)}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD.replace("shared.training.lock", "lock"), str(tmp_path)],
        cwd=ROOT / "shared" / "training",
        env=os.environ | path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"held\n"
    yield holder
    holder.kill()
    holder.communicate()


def test_a_second_process_is_refused(tmp_path, other):
    assert is_locked(tmp_path)
    refused = pytest.raises(CourseError, match=f"another process is running in {tmp_path}; wait")
    with refused, lock.exclusive_lock(tmp_path, patience=0.0):
        pass
    other.kill()
    other.wait()
    assert not is_locked(tmp_path)  # although it was killed
    with lock.exclusive_lock(tmp_path, patience=0.0):
        pass


def test_a_job_waits_for_a_process_that_is_still_saving(tmp_path, other, monkeypatch, capsys):
    monkeypatch.setattr("shared.course.jobs._start", lambda job: EndedProcess(job_process.run_job(job.folder)))
    (tmp_path / "job.json").write_text("{}")

    def kill_holder(_):
        other.kill()
        other.wait()

    monkeypatch.setattr(lock.time, "sleep", kill_holder)
    arguments = CONTEXT_ARGUMENTS | {"first": 1, "second": 2}
    job = Job("add", "shared.course.tests.job_functions:add", arguments, tmp_path)
    assert run_jobs([job])["add"]["sum"] == 3
    assert f"waiting for the process that is still running in {tmp_path}" in capsys.readouterr().err
    assert not is_locked(tmp_path)


class EndedProcess:
    """A process that has ended."""

    def __init__(self, returncode: int):
        self.returncode = returncode

    def poll(self) -> int:
        return self.returncode


def test_training_does_not_change_a_locked_folder(tmp_path, other):
    (tmp_path / "checkpoint.safetensors").write_text("of the other process")
    with pytest.raises(CourseError, match="another process is running"):
        train(
            nn.Linear(2, 1),
            lambda number: torch.ones(4, 2),
            first_output,
            TrainingConfig(2, 0.1),
            run=RunOptions(folder=tmp_path),
        )
    assert (tmp_path / "checkpoint.safetensors").read_text() == "of the other process"


def first_output(model, batch):
    assert is_locked(Path("."))
    return model(batch).square().mean()


def test_training_locks_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(
        nn.Linear(2, 1),
        lambda number: torch.ones(4, 2),
        first_output,
        TrainingConfig(2, 0.1),
        run=RunOptions(folder=tmp_path),
    )
    assert not is_locked(tmp_path)


def test_a_process_may_nest_its_locks(tmp_path):
    with lock.exclusive_lock(tmp_path):
        with lock.exclusive_lock(tmp_path / ".", patience=0.0):
            assert is_locked(tmp_path)
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


def test_on_a_file_system_without_locks_nothing_is_locked(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with lock.exclusive_lock(tmp_path, patience=0.0):
        assert not is_locked(tmp_path)
