import json
import os
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from pathlib import Path

import pytest

from shared.course import job_process, jobs
from shared.course import job_spec as one_job
from shared.course.job_display import read_report, report_text
from shared.course.job_spec import Job
from shared.course.jobs import run_jobs
from shared.course.tests import job_functions
from shared.errors import CourseError
from shared.training import TrainingInterrupted

FUNCTIONS = "shared.course.tests.job_functions:"


class Done:
    """A process that has ended."""

    def __init__(self, returncode: int):
        self.returncode = returncode

    def poll(self) -> int:
        return self.returncode


@pytest.fixture
def at_once(monkeypatch):
    """Do each job right here instead of in a process of its own, whose start takes seconds."""
    monkeypatch.setattr(jobs, "_start", lambda job: Done(job_process.main(job.folder)))


def add(folder: Path, name: str = "add", **arguments) -> Job:
    return Job(name, FUNCTIONS + "add", {"first": 1, "second": 2} | arguments, folder / name)


def test_jobs_have_one_thread_and_tell_their_costs(tmp_path, capsys):
    both = [add(tmp_path), add(tmp_path, "more", second=5)]
    results = run_jobs(both)
    assert list(results) == ["add", "more"]
    assert results["add"]["sum"] == 3 and results["more"]["sum"] == 6
    assert results["add"]["threads"] == 1
    costs = results["add"]
    assert costs["_seconds"] >= 0 and 20 < costs["_peak_memory_mb"] < 5000 and costs["_device"] == "cpu"
    assert "add: started" in capsys.readouterr().err


def test_a_finished_job_is_read_and_a_changed_one_done_afresh(tmp_path, capsys, at_once):
    results = run_jobs([add(tmp_path), add(tmp_path, "more", second=5)])
    (tmp_path / "more" / "stale").write_text("")
    again = run_jobs([add(tmp_path), add(tmp_path, "more", second=7)], resume=True)
    assert again["add"] == results["add"] and again["more"]["sum"] == 8
    assert (tmp_path / "add" / "calls").read_text() == "x"
    assert "add: taken from the cache" in capsys.readouterr().err
    assert not (tmp_path / "more" / "stale").exists()


def test_without_resume_a_finished_job_is_done_again(tmp_path, at_once):
    run_jobs([add(tmp_path)])
    (tmp_path / "add" / "stale").write_text("")
    assert run_jobs([add(tmp_path)])["add"]["resumed"] is False
    assert not (tmp_path / "add" / "stale").exists()


def test_the_fingerprint_knows_arguments_and_the_sources_one_may_import(tmp_path, monkeypatch):
    for file in ("shared/a.py", "data/b.py", "lessons/lesson_01_vit/model.py", "lessons/lesson_02_clip/model.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("x = 1")
    monkeypatch.setattr(one_job, "ROOT", tmp_path)

    def prints():
        functions = ("lessons.lesson_01_vit.experiment:arm", "lessons.lesson_02_clip.experiment:arm")
        return [Job("arm", function, {"seed": 0}, tmp_path).fingerprint for function in functions]

    first = prints()
    assert first == prints() and first[0] != first[1]
    assert Job("arm", "lessons.lesson_01_vit.experiment:arm", {"seed": 1}, tmp_path).fingerprint not in first
    for file, changes in {
        "shared/a.py": [True, True],
        "data/new.py": [True, True],
        "lessons/lesson_01_vit/model.py": [True, True],  # lesson 2 stands on lesson 1
        "lessons/lesson_02_clip/model.py": [False, True],
        "lessons/lesson_01_vit/tests/test_model.py": [False, False],
        "lessons/lesson_01_vit/README.md": [False, False],
        "data/cache/other.py": [False, False],
        "shared/course/run.py": [False, False],  # what reads results changes none
        "shared/plots/style.py": [False, False],
        "lessons/lesson_01_vit/experiment/lesson.py": [False, False],
    }.items():
        before = prints()
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("x = 2")
        assert [old != new for old, new in zip(before, prints(), strict=True)] == changes, file


def test_a_failing_job_says_why_and_stops_the_others(tmp_path):
    slow = Job("slow", FUNCTIONS + "train_small", {"steps": 100_000, "pause": 0.01}, tmp_path / "slow")
    bad = Job("bad", FUNCTIONS + "fail_kindly", {}, tmp_path / "bad")
    with pytest.raises(CourseError) as caught:
        run_jobs([slow, bad, add(tmp_path)])
    lines = str(caught.value).splitlines()
    assert lines[0] == "job bad failed: no such flavor: vanilla; choose chocolate"
    assert "log.txt" in lines[1] and len(lines) == 2
    assert not (tmp_path / "slow" / "result.json").exists()
    assert not (tmp_path / "add" / "calls").exists()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("fail_with_a_bug", "IndexError: list index out of range"),
        ("return_a_tensor", "must return what JSON can hold"),
        ("nonesuch", "nonesuch"),
    ],
)
def test_other_ways_to_fail(tmp_path, function, message, at_once):
    with pytest.raises(CourseError, match=f"(?s)job arm failed: .*{message}"):
        run_jobs([Job("arm", FUNCTIONS + function, {}, tmp_path / "arm")])


def test_a_failed_job_is_tried_again_with_resume(tmp_path, at_once):
    bad = Job("bad", FUNCTIONS + "fail_kindly", {}, tmp_path / "bad")
    for _ in range(2):
        with pytest.raises(CourseError, match="vanilla"):
            run_jobs([bad], resume=True)


def wait_for(condition, seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def test_a_process_that_was_killed_is_told(tmp_path, monkeypatch):
    job = add(tmp_path)
    job.folder.mkdir()
    with pytest.raises(CourseError, match=r"job add failed: its process was killed.*memory"):
        jobs._collect(job, -signal.SIGKILL)
    with pytest.raises(CourseError, match=r"stopped from outside.*RESUME=1"):
        jobs._collect(job, 130)
    with pytest.raises(CourseError, match="ended with status 3"):
        jobs._collect(job, 3)
    (job.folder / "error.txt").touch()  # there was no room for a word
    monkeypatch.setattr(jobs.shutil, "disk_usage", lambda folder: Namespace(free=1000))
    with pytest.raises(CourseError, match=r"job add failed: the disk that holds .* is full.*RESUME=1"):
        jobs._collect(job, 1)


def test_a_stopped_run_goes_on_to_the_very_same_weights(tmp_path, request):
    (tmp_path / "whole").mkdir()
    whole = job_functions.train_small(steps=40, pause=0.02, folder=tmp_path / "whole", resume=False)
    small = Job("small", FUNCTIONS + "train_small", {"steps": 40, "pause": 0.02}, tmp_path / "small")

    def press_ctrl_c_in_the_midst():
        wait_for(lambda: (read_report(small) or {"step": 0})["step"] > 2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press_ctrl_c_in_the_midst).start()
    with pytest.raises(TrainingInterrupted, match=r"by Ctrl-C with 0 of 2 jobs finished.*RESUME=1"):
        run_jobs([small, add(tmp_path)], workers=1)
    assert json.loads((small.folder / "job.json").read_text())["seconds"] > 0
    assert len((small.folder / "metrics.jsonl").read_text().splitlines()) < whole["lines"]

    request.getfixturevalue("at_once")
    resumed = run_jobs([small, add(tmp_path)], resume=True)
    assert resumed["small"]["weights"] == whole["weights"] and resumed["small"]["lines"] == whole["lines"] == 6
    assert resumed["add"]["sum"] == 3


def test_a_job_stops_when_its_parent_is_gone(tmp_path):
    small = Job("small", FUNCTIONS + "train_small", {"steps": 100_000, "pause": 0.01}, tmp_path / "small")
    program = (
        "from pathlib import Path; from shared.course.job_spec import Job\nfrom shared.course.jobs import run_jobs\n"
        f"run_jobs([Job('small', {small.function!r}, {small.arguments!r}, Path({str(small.folder)!r}))])"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL, cwd=jobs.ROOT)
    wait_for(lambda: (read_report(small) or {"step": 0})["step"] > 2)
    parent.kill()
    parent.wait()
    wait_for(lambda: (small.folder / "checkpoint.safetensors").exists())  # it was asked to save, and did
    step = read_report(small)["step"]
    wait_for(lambda: json.loads((small.folder / "job.json").read_text())["seconds"] > 0)
    assert read_report(small)["step"] < 100_000 and step > 0


def test_a_folder_with_something_else_in_it_is_not_touched(tmp_path):
    (tmp_path / "add").mkdir()
    (tmp_path / "add" / "thesis.txt").write_text("years of work")
    with pytest.raises(CourseError, match=r"no job\.json"):
        run_jobs([add(tmp_path)])
    assert (tmp_path / "add" / "thesis.txt").read_text() == "years of work"


def test_jobs_that_collide_or_do_not_fit_json_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the same name"):
        run_jobs([add(tmp_path), add(tmp_path, second=3)])
    with pytest.raises(ValueError, match="the same folder"):
        run_jobs([add(tmp_path), Job("b", FUNCTIONS + "add", {}, tmp_path / "add")])
    with pytest.raises(ValueError, match=r"'add'.*JSON"):
        run_jobs([add(tmp_path, second=Path("x"))])
    with pytest.raises(ValueError, match="workers is 0"):
        run_jobs([add(tmp_path)], workers=0)


def test_a_bars_text():
    report = {"label": "teacher", "step": 12, "steps": 40, "loss": 0.52345, "pace": "0:01 left · 52 steps/s"}
    assert report_text(report, 67.2) == "teacher · 12/40 · loss 0.5234 · 0:01 left · 52 steps/s"
    assert report_text(report | {"label": "", "loss": None, "pace": "starting"}, 1) == "12/40 · starting"
    assert report_text(None, 3671) == "1:01:11"
