"""What `make runs` says of what lies under runs/."""

import contextlib
import json
import os
import subprocess

import pytest
import torch
from torch import nn

from shared.course import runs
from shared.course.job_spec import Job
from shared.course.runs import OLDER, commands, find_runs, show, size_text
from shared.training import Batches, RunOptions, TrainingConfig, train
from shared.training.checkpoint import FILE_NAME
from shared.training.lock import sole_use

FUNCTION = "shared.course.tests.job_functions:train_small"


@pytest.fixture
def arm(tmp_path):
    """Makes the folder of an arm, as a lesson's run leaves it."""

    def make(name: str = "vit", place: str = "smoke", seed: int = 0, lesson: str = "lesson_01_vit", **arguments):
        folder = tmp_path / lesson / place / f"seed-{seed}" / name
        folder.mkdir(parents=True)
        arguments = {"steps": 6, "seed": seed, "data": "digits", "device": "cpu"} | arguments
        ticket = {"name": name, "function": FUNCTION, "arguments": arguments}
        ticket |= {"fingerprint": Job(name, FUNCTION, arguments, folder).fingerprint, "resume": False, "seconds": 0.0}
        (folder / "job.json").write_text(json.dumps(ticket))
        return folder

    return make


def report(folder, step: int, label: str = "") -> None:
    (folder / "log.txt").touch()
    (folder / "progress.json").write_text(json.dumps({"label": label, "step": step, "steps": 6, "loss": 1.0}))


def trained(folder, steps: int = 6, stop_after: int = 6) -> None:
    """Train a small model for `steps` steps, and cut it in the midst of the step after `stop_after`."""
    batches = Batches(torch.randn(16, 3), batch_size=8, seed=0)

    def batch_at(number: int):
        if number == stop_after:
            raise KeyboardInterrupt
        return batches(number)

    config = TrainingConfig(steps, 0.1, checkpoint_every=2)
    with contextlib.suppress(KeyboardInterrupt):
        train(
            nn.Linear(3, 1),
            batch_at,
            lambda model, batch: model(batch).square().mean(),
            config,
            run=RunOptions(folder=folder),
        )


def states(tmp_path) -> dict[str, str]:
    return {run.arm: run.state for run in find_runs(tmp_path)}


def test_every_state_in_words(tmp_path, arm):
    (arm("done") / "result.json").write_text("{}")
    failed = arm("failed kindly")
    (failed / "error.txt").write_text("no such flavor: vanilla; choose chocolate\nor nothing\n")
    (arm("failed badly") / "error.txt").write_text("Traceback (most recent call last):\n  File …\nIndexError: 7\n")
    cut = arm("cut")
    trained(cut, stop_after=5)
    report(cut, 5, "teacher")
    report(arm("nothing saved"), 1)
    (arm("hardly begun") / "log.txt").touch()
    arm("waiting")
    running = arm("running")
    report(running, 3)
    with sole_use(running):
        assert states(tmp_path) == {
            "done": "finished",
            "failed kindly": "failed: no such flavor: vanilla; choose chocolate",
            "failed badly": "failed: IndexError: 7",
            "cut": "cut at step 5 of 6 of teacher, saved at 4",
            "nothing saved": "cut at step 1 of 6, nothing saved yet",
            "hardly begun": "cut before its first step",
            "waiting": "waiting",
            "running": "running, step 3 of 6",
        }
    assert states(tmp_path)["running"] == "cut at step 3 of 6, nothing saved yet"  # its process is gone


def test_a_checkpoint_that_cannot_be_read_is_told(tmp_path, arm):
    folder = arm()
    report(folder, 5)
    (folder / FILE_NAME).write_bytes(b"half")
    assert states(tmp_path)["vit"] == "cut at step 5 of 6, checkpoint.safetensors damaged"


def test_a_result_of_older_code_is_marked(tmp_path, arm):
    folder = arm()
    (folder / "result.json").write_text("{}")
    ticket = json.loads((folder / "job.json").read_text())
    (folder / "job.json").write_text(json.dumps(ticket | {"fingerprint": "of yesterday"}))
    assert states(tmp_path)["vit"] == "finished" + OLDER


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ([{}], "make lesson-1 PRESET=smoke SEED=0 RESUME=1"),
        ([{"seed": 10}, {"seed": 2}], "make lesson-1 PRESET=smoke SEED='2 10' RESUME=1"),
        (
            [{"place": "cpu-cifar10", "data": "cifar10", "lesson": "lesson_12_diffusion"}],
            "make lesson-12 PRESET=cpu SEED=0 DATA=cifar10 RESUME=1",
        ),
        ([{"place": "gpu", "device": "cuda"}], "make lesson-1 PRESET=gpu SEED=0 RESUME=1"),
        ([{"place": "cpu", "device": "cuda"}], "make lesson-1 PRESET=cpu SEED=0 DEVICE=cuda RESUME=1"),
        ([{"place": "gpu", "device": "cpu"}], "make lesson-1 PRESET=gpu SEED=0 DEVICE=cpu RESUME=1"),
    ],
)
def test_the_command_that_goes_on(tmp_path, arm, options, command):
    for option in options:
        arm(**option)
    assert list(commands(find_runs(tmp_path))) == [command]


def test_the_command_is_one_that_make_takes(arm, tmp_path):
    """Make and the shell must hand the seeds over as they were."""
    for seed in (0, 1):
        arm(seed=seed)
    (command,) = commands(find_runs(tmp_path))
    told = subprocess.run(
        f"{command} --dry-run RUN=python", shell=True, cwd=runs.ROOT, capture_output=True, text=True, check=True
    )
    assert "-m shared.course.run 1 --preset smoke --seeds 0 1" in told.stdout and "--resume" in told.stdout


def test_only_what_is_unfinished_has_a_command(tmp_path, arm):
    (arm() / "result.json").write_text("{}")
    assert list(commands(find_runs(tmp_path))) == []
    other = arm("registers")
    assert len(list(commands(find_runs(tmp_path)))) == 1
    with sole_use(other):  # while something runs, the same command would only get in its way
        assert list(commands(find_runs(tmp_path))) == []


def test_a_training_of_ones_own_is_listed_too(tmp_path):
    trained(tmp_path / "mine" / "whole")
    trained(tmp_path / "mine" / "half", stop_after=3)
    trained(tmp_path / "mine" / "broken")
    (tmp_path / "mine" / "broken" / FILE_NAME).write_bytes(b"")
    trained(tmp_path / "mine" / "shared out", stop_after=3)
    (tmp_path / "mine" / "shared out" / "checkpoint-00000004").mkdir()  # several processes went on with it
    header = json.dumps({"step": 4, "settings": {"steps": 6, "seed": 7}})
    (tmp_path / "mine" / "shared out" / "checkpoint-00000004" / "training.json").write_text(header)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "job.json").write_text("[]")  # another program's
    assert states(tmp_path) == {
        "mine/broken": "failed: checkpoint.safetensors is damaged or not from a training run",
        "mine/half": "cut at step 2 of 6",
        "mine/shared out": "cut at step 4 of 6",
        "mine/whole": "finished",
    }
    assert list(commands(find_runs(tmp_path))) == []


def test_piped_it_is_plain_lines(tmp_path, arm, capsys):
    folder = arm("the [bold] one")
    report(folder, 5)
    (folder / FILE_NAME).write_bytes(bytes(3000))
    for path in folder.iterdir():
        os.utime(path, (1_800_000_000, 1_800_000_000))
    show(tmp_path, terminal=False)
    header, row, command = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert tuple(header) == runs.COLUMNS and len(row) == len(header)
    assert row[:5] == ["1", "smoke", "0", "the [bold] one", "cut at step 5 of 6, checkpoint.safetensors damaged"]
    assert row[5].endswith(" kB") and row[6].startswith("2027-01-1")
    assert command == ["to go on:", "make lesson-1 PRESET=smoke SEED=0 RESUME=1"]


def test_on_a_terminal_it_is_a_table(tmp_path, arm, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    (arm("the [bold] one") / "error.txt").write_text("no [such] file\n")
    ticket = arm("old")
    (ticket / "result.json").write_text("{}")
    order = json.loads((ticket / "job.json").read_text())
    (ticket / "job.json").write_text(json.dumps(order | {"fingerprint": ""}))
    show(tmp_path, terminal=True)
    shown = capsys.readouterr().out
    for words in ("the [bold] one", "failed: no [such] file", "finished (older code)", "begin them afresh", "RESUME=1"):
        assert words in shown


def test_nothing_yet(tmp_path, capsys):
    show(tmp_path / "nowhere", terminal=True)
    assert "nothing has run yet" in capsys.readouterr().out


def test_sizes():
    assert [size_text(size) for size in (0, 437, 1000, 3449, 12_345, 2_768_008, 5e12)] == [
        "0 B",
        "437 B",
        "1.0 kB",
        "3.4 kB",
        "12 kB",
        "2.8 MB",
        "5000 GB",
    ]
