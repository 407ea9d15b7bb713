"""`make runs` lists the state of every run under runs/."""

import contextlib
import json
import os
import shlex
import subprocess

import pytest
import torch
from torch import nn

from shared.course import runs
from shared.course.job_spec import Job
from shared.course.runs import OUTDATED, find_runs, print_runs, resume_commands, size_text
from shared.testing import environment_without_make
from shared.training import Batches, RunOptions, TrainingConfig, train
from shared.training.checkpoint import FILE_NAME
from shared.training.lock import exclusive_lock

RESULT = json.dumps({"accuracy": 0.5, "_seconds": 1.0, "_peak_memory_mb": 200.0, "_device": "cpu"})
FUNCTION = "shared.course.tests.job_functions:train_small"


@pytest.fixture
def arm(tmp_path):
    """Return a function that makes the folder of an arm, as a lesson's run does."""

    def make(name: str = "vit", preset: str = "smoke", seed: int = 0, lesson: str = "lesson_01_vit", **arguments):
        folder = tmp_path / lesson / preset / f"seed-{seed}" / name
        folder.mkdir(parents=True)
        arguments = {"steps": 6, "seed": seed, "data": "digits", "device": "cpu"} | arguments
        job = {"name": name, "function": FUNCTION, "arguments": arguments}
        job |= {"fingerprint": Job(name, FUNCTION, arguments, folder).fingerprint, "resume": False, "seconds": 0.0}
        (folder / "job.json").write_text(json.dumps(job))
        return folder

    return make


def write_progress(folder, step: int, label: str = "") -> None:
    (folder / "log.txt").touch()
    (folder / "progress.json").write_text(
        json.dumps({"label": label, "step": step, "steps": 6, "loss": 1.0, "pace": ""})
    )


def train_small(folder, steps: int = 6, stop_after: int = 6) -> None:
    """Train a small model for `steps` steps, and interrupt it in the step after `stop_after`."""
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


def test_every_state_is_listed(tmp_path, arm):
    (arm("done") / "result.json").write_text(RESULT)
    failed = arm("failed kindly")
    (failed / "error.txt").write_text("no such flavor: vanilla; choose chocolate\nor nothing\n")
    (arm("failed badly") / "error.txt").write_text("Traceback (most recent call last):\n  File …\nIndexError: 7\n")
    interrupted = arm("interrupted")
    train_small(interrupted, stop_after=5)
    write_progress(interrupted, 5, "teacher")
    write_progress(arm("nothing saved"), 1)
    (arm("hardly begun") / "log.txt").touch()
    arm("waiting")
    running = arm("running")
    write_progress(running, 3)
    with exclusive_lock(running):
        assert states(tmp_path) == {
            "done": "finished",
            "failed kindly": "failed: no such flavor: vanilla; choose chocolate",
            "failed badly": "failed: IndexError: 7",
            "interrupted": "interrupted at step 5 of 6 of teacher, saved at 4",
            "nothing saved": "interrupted at step 1 of 6, nothing saved yet",
            "hardly begun": "interrupted before its first step",
            "waiting": "waiting",
            "running": "running, step 3 of 6",
        }
    assert states(tmp_path)["running"] == "interrupted at step 3 of 6, nothing saved yet"  # its process is gone


def test_a_damaged_checkpoint_is_listed(tmp_path, arm):
    folder = arm()
    write_progress(folder, 5)
    (folder / FILE_NAME).write_bytes(b"half")
    assert states(tmp_path)["vit"] == "interrupted at step 5 of 6, checkpoint.safetensors damaged"


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("result.json", "", "result.json is damaged: it is empty"),
        ("result.json", RESULT[:30], "result.json is damaged: it is not JSON"),
        ("result.json", "{}", "result.json is damaged: it has no '_seconds'"),
        ("result.json", "[1]", "result.json is damaged: it holds a list where an object is expected"),
        ("job.json", "", "job.json is damaged: it is empty"),
        ("job.json", '{"fingerprint": 5}', "job.json is damaged: it has no 'name'"),
    ],
)
def test_a_damaged_record_is_named_and_does_not_count_as_finished(tmp_path, arm, name, content, fault):
    (arm("other") / "result.json").write_text(RESULT)
    (arm() / "result.json").write_text(RESULT)
    (tmp_path / "lesson_01_vit" / "smoke" / "seed-0" / "vit" / name).write_text(content)
    assert states(tmp_path) == {"other": "finished", "vit": f"failed: {fault}; RESUME=1 runs this arm again"}
    assert list(resume_commands(find_runs(tmp_path))) == ["make lesson-1 PRESET=smoke SEED=0 RESUME=1"]


@pytest.mark.parametrize("content", ["", '{"step"', "[]", "{}", '{"step": "2", "steps": 6, "label": "", "loss": 1}'])
def test_damaged_progress_is_left_out(tmp_path, arm, content):
    folder = arm()
    write_progress(folder, 5)
    (folder / "progress.json").write_text(content)
    assert states(tmp_path) == {"vit": "interrupted before its first step"}


@pytest.mark.parametrize("header", ["", "[]", "{}", '{"step": 4}', '{"step": 4, "settings": []}'])
def test_a_sharded_checkpoint_without_its_settings_is_damaged(tmp_path, header):
    (tmp_path / "mine" / "checkpoint-00000004").mkdir(parents=True)
    (tmp_path / "mine" / "checkpoint-00000004" / "training.json").write_text(header)
    assert states(tmp_path)["mine"].startswith("failed: ")


def test_a_result_of_older_code_is_marked(tmp_path, arm):
    folder = arm()
    (folder / "result.json").write_text(RESULT)
    job = json.loads((folder / "job.json").read_text())
    (folder / "job.json").write_text(json.dumps(job | {"fingerprint": "of yesterday"}))
    assert states(tmp_path)["vit"] == "finished" + OUTDATED


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ([{}], "make lesson-1 PRESET=smoke SEED=0 RESUME=1"),
        ([{"seed": 10}, {"seed": 2}], "make lesson-1 PRESET=smoke SEED='2 10' RESUME=1"),
        (
            [{"preset": "cpu-cifar10", "data": "cifar10", "lesson": "lesson_12_diffusion"}],
            "make lesson-12 PRESET=cpu SEED=0 DATA=cifar10 RESUME=1",
        ),
        ([{"preset": "gpu", "device": "cuda"}], "make lesson-1 PRESET=gpu SEED=0 RESUME=1"),
        ([{"preset": "cpu", "device": "cuda"}], "make lesson-1 PRESET=cpu SEED=0 DEVICE=cuda RESUME=1"),
        ([{"preset": "gpu", "device": "cpu"}], "make lesson-1 PRESET=gpu SEED=0 DEVICE=cpu RESUME=1"),
    ],
)
def test_the_command_that_continues_a_run(tmp_path, arm, options, command):
    for option in options:
        arm(**option)
    assert list(resume_commands(find_runs(tmp_path))) == [command]


def test_make_accepts_the_command(arm, tmp_path):
    """Make and the shell pass the seeds on unchanged."""
    for seed in (0, 1):
        arm(seed=seed)
    (command,) = resume_commands(find_runs(tmp_path))
    done = subprocess.run(
        f"{command} --dry-run RUN=python",
        shell=True,
        cwd=runs.ROOT,
        env=environment_without_make(),
        capture_output=True,
        text=True,
        check=True,
    )
    words = shlex.split(done.stdout.splitlines()[-1])
    assert words[2:] == ["shared.course.run", "1", "--seeds=0 1", "--preset=smoke", "--resume"]


def test_only_unfinished_runs_have_a_command(tmp_path, arm):
    (arm() / "result.json").write_text(RESULT)
    assert list(resume_commands(find_runs(tmp_path))) == []
    other = arm("registers")
    assert len(list(resume_commands(find_runs(tmp_path)))) == 1
    with exclusive_lock(other):  # a running arm needs no second process
        assert list(resume_commands(find_runs(tmp_path))) == []


def test_a_training_run_outside_of_lessons_is_listed(tmp_path):
    train_small(tmp_path / "mine" / "finished")
    train_small(tmp_path / "mine" / "half", stop_after=3)
    train_small(tmp_path / "mine" / "broken")
    (tmp_path / "mine" / "broken" / FILE_NAME).write_bytes(b"")
    train_small(tmp_path / "mine" / "sharded", stop_after=3)
    (tmp_path / "mine" / "sharded" / "checkpoint-00000004").mkdir()  # continued by several processes
    header = json.dumps({"step": 4, "settings": {"steps": 6, "seed": 7}})
    (tmp_path / "mine" / "sharded" / "checkpoint-00000004" / "training.json").write_text(header)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "job.json").write_text("[]")  # of another program
    assert states(tmp_path) == {
        "mine/broken": "failed: checkpoint.safetensors is damaged or not from a training run",
        "mine/half": "interrupted at step 2 of 6",
        "mine/sharded": "interrupted at step 4 of 6",
        "mine/finished": "finished",
    }
    assert list(resume_commands(find_runs(tmp_path))) == []


def test_output_to_a_pipe_is_plain_lines(tmp_path, arm, capsys):
    folder = arm("the [bold] one")
    write_progress(folder, 5)
    (folder / FILE_NAME).write_bytes(bytes(3000))
    for path in folder.iterdir():
        os.utime(path, (1_800_000_000, 1_800_000_000))
    print_runs(tmp_path, terminal=False)
    header, row, command = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert tuple(header) == runs.COLUMNS and len(row) == len(header)
    assert row[:5] == [
        "1",
        "smoke",
        "0",
        "the [bold] one",
        "interrupted at step 5 of 6, checkpoint.safetensors damaged",
    ]
    assert row[5].endswith(" kB") and row[6].startswith("2027-01-1")
    assert command == ["to continue:", "make lesson-1 PRESET=smoke SEED=0 RESUME=1"]


def test_output_to_a_terminal_is_a_table(tmp_path, arm, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    (arm("the [bold] one") / "error.txt").write_text("no [such] file\n")
    job = arm("old")
    (job / "result.json").write_text(RESULT)
    record = json.loads((job / "job.json").read_text())
    (job / "job.json").write_text(json.dumps(record | {"fingerprint": ""}))
    print_runs(tmp_path, terminal=True)
    output = capsys.readouterr().out
    for words in (
        "the [bold] one",
        "failed: no [such] file",
        "finished (older code)",
        "starts these runs over",
        "RESUME=1",
    ):
        assert words in output


def test_no_run_yet(tmp_path, capsys):
    print_runs(tmp_path / "nowhere", terminal=True)
    assert "no run yet" in capsys.readouterr().out


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
