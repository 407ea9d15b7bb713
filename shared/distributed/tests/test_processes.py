import pytest
import torch

from shared.distributed import is_main, join, leave, rank, world_size
from shared.distributed.launch import launch
from shared.errors import CourseError


def test_without_torchrun_nothing_has_an_effect():
    assert join("cpu") == torch.device("cpu")
    assert not torch.distributed.is_initialized()
    assert (rank(), world_size(), is_main()) == (0, 1, True)
    leave()


def test_an_incomplete_environment_is_reported(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CourseError, match=r"not LOCAL_RANK, .*MASTER_PORT: start the processes with torchrun"):
        join()


def test_more_processes_than_gpus_are_reported(monkeypatch):
    for name, value in {"RANK": 3, "WORLD_SIZE": 4, "LOCAL_RANK": 3, "LOCAL_WORLD_SIZE": 4, "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(CourseError, match="process 3 of this machine finds 2 GPUs"):
        join("cuda")


def test_a_single_process_is_started_without_torchrun(tmp_path):
    program = tmp_path / "show.py"
    program.write_text("import os, sys; print(sys.argv[1], 'RANK' in os.environ, os.environ['OMP_NUM_THREADS'])")
    result = launch(1, program, "hello")
    assert (result.returncode, result.stdout.split()) == (0, ["hello", "False", "1"])
