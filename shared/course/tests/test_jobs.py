import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest

from shared.course import job_process, job_spec, jobs
from shared.course.context import RunContext
from shared.course.job_display import format_report, read_report
from shared.course.job_log import JobLog
from shared.course.job_spec import Job
from shared.course.jobs import run_jobs
from shared.course.tests import job_functions
from shared.errors import CourseError
from shared.training import TrainingInterrupted

FUNCTIONS = "shared.course.tests.job_functions:"


class EndedProcess:
    """A process that has ended."""

    def __init__(self, returncode: int):
        self.returncode = returncode

    def poll(self) -> int:
        return self.returncode


@pytest.fixture
def in_process(monkeypatch):
    """Run each job in this process instead of its own, whose start takes seconds."""
    monkeypatch.setattr(jobs, "_start", lambda job: EndedProcess(job_process.run_job(job.folder)))


def make_job(name: str, function: str, folder: Path, **settings) -> Job:
    return Job(name, FUNCTIONS + function, job_functions.CONTEXT_ARGUMENTS | settings, folder)


def add_job(folder: Path, name: str = "add", **settings) -> Job:
    return make_job(name, "add", folder / name, **({"first": 1, "second": 2} | settings))


def test_jobs_have_one_thread_and_report_their_costs(tmp_path, capsys):
    two_jobs = [add_job(tmp_path), add_job(tmp_path, "more", second=5)]
    results = run_jobs(two_jobs)
    assert list(results) == ["add", "more"]
    assert results["add"]["sum"] == 3 and results["more"]["sum"] == 6
    assert results["add"]["threads"] == 1
    costs = results["add"]
    assert costs["_seconds"] >= 0 and 20 < costs["_peak_memory_mb"] < 5000 and costs["_device"] == "cpu"
    assert "add: started" in capsys.readouterr().err


def test_a_finished_job_is_read_from_the_cache_and_a_changed_one_runs_again(tmp_path, capsys, in_process):
    results = run_jobs([add_job(tmp_path), add_job(tmp_path, "more", second=5)])
    (tmp_path / "more" / "stale").write_text("")
    again = run_jobs([add_job(tmp_path), add_job(tmp_path, "more", second=7)], resume=True)
    assert again["add"] == results["add"] and again["more"]["sum"] == 8
    assert (tmp_path / "add" / "calls").read_text() == "x"
    assert "add: taken from the cache" in capsys.readouterr().err
    assert not (tmp_path / "more" / "stale").exists()


def test_a_job_waits_for_the_jobs_whose_results_it_reads(tmp_path, in_process):
    first, other = add_job(tmp_path), add_job(tmp_path, "other")
    last = make_job("last", "add_to_another", tmp_path / "last", other="add", second=4)
    results = run_jobs([first, replace(last, after=("add",)), other], workers=2)
    assert results["last"]["sum"] == 7 and list(results) == ["add", "last", "other"]


def test_jobs_start_in_order_but_for_those_that_wait(tmp_path):
    first, second = add_job(tmp_path, "a"), replace(add_job(tmp_path, "b"), after=("a",))
    assert jobs._next_job([second, add_job(tmp_path, "c")], {}).name == "c"
    assert jobs._next_job([second], {}) is None
    assert jobs._next_job([second, first], {"a": {}}) is second


def test_a_job_that_waits_for_a_later_one_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="'add' waits for more, which must come before it"):
        run_jobs([replace(add_job(tmp_path), after=("more",)), add_job(tmp_path, "more")])


def test_reading_an_arm_that_has_not_finished_is_an_error(tmp_path):
    context = RunContext(**job_functions.CONTEXT_ARGUMENTS, folder=tmp_path / "last")
    with pytest.raises(CourseError, match="the arm 'add' has no result"):
        context.measurements_of("add")


def test_without_resume_a_finished_job_runs_again(tmp_path, in_process):
    run_jobs([add_job(tmp_path)])
    (tmp_path / "add" / "stale").write_text("")
    assert run_jobs([add_job(tmp_path)])["add"]["resumed"] is False
    assert not (tmp_path / "add" / "stale").exists()


def test_a_changed_folder_of_images_makes_a_finished_job_stale(tmp_path, monkeypatch, in_process):
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").write_bytes(b"one")
    monkeypatch.setattr(job_spec, "ROOT", tmp_path)
    for data in (f"folder:{images}", "folder:images"):  # jobs run in the root of the repository
        job = add_job(tmp_path / "runs", data=data)
        first = job.fingerprint
        assert job.fingerprint == first
        (images / "b.png").write_bytes(b"two")
        assert job.fingerprint != first
        (images / "b.png").unlink()
        assert job.fingerprint == first
        assert add_job(tmp_path / "runs", data="digits").fingerprint != first
    run_jobs([job])
    run_jobs([job], resume=True)
    assert (tmp_path / "runs" / "add" / "calls").read_text() == "x", "taken from the cache"
    os.utime(images / "a.png", ns=(0, 0))
    assert run_jobs([job], resume=True)["add"]["resumed"] is False
    assert (tmp_path / "runs" / "add" / "calls").read_text() == "x", "another folder, another run"


def test_the_fingerprint_covers_arguments_and_the_sources_that_a_job_may_import(tmp_path, monkeypatch):
    files = ("shared/a.py", "data/b.py", "lessons/lesson_01_vit/model.py", "lessons/lesson_02_clip/model.py")
    for file in (*files, "apps/captioner/train.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("x = 1")
    monkeypatch.setattr(job_spec, "ROOT", tmp_path)

    modules = (
        "lessons.lesson_01_vit.experiment.train",
        "lessons.lesson_02_clip.experiment.arms",
        "apps.captioner.arms",
    )

    def fingerprints(seed: int = 0):
        return [Job("arm", f"{module}:arm", {"seed": seed}, tmp_path).fingerprint for module in modules]

    first = fingerprints()
    assert first == fingerprints() and len(set(first)) == 3
    assert not set(first) & set(fingerprints(seed=1))
    for file, changes in {
        "shared/a.py": [True, True, True],
        "data/new.py": [True, True, True],
        "lessons/lesson_01_vit/model.py": [True, True, True],  # lesson 2 imports lesson 1
        "lessons/lesson_02_clip/model.py": [False, True, True],  # an app imports lessons
        "apps/captioner/train.py": [False, False, True],  # no lesson imports an app
        "lessons/lesson_01_vit/tests/test_model.py": [False, False, False],
        "lessons/lesson_01_vit/README.md": [False, False, False],
        "data/cache/other.py": [False, False, False],
        "shared/course/run.py": [False, False, False],  # reads results only
        "shared/plots/style.py": [False, False, False],
        "lessons/lesson_01_vit/experiment/lesson.py": [False, False, False],
        "lessons/lesson_01_vit/experiment/arms.py": [False, False, False],
        "lessons/lesson_02_clip/experiment/arms.py": [False, True, False],  # defines lesson 2's function
        "apps/captioner/arms.py": [False, False, True],
    }.items():
        before = fingerprints()
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("x = 2")
        assert [old != new for old, new in zip(before, fingerprints(), strict=True)] == changes, file


def test_a_failing_job_gives_the_reason_and_stops_the_others(tmp_path):
    slow = make_job("slow", "train_small", tmp_path / "slow", steps=100_000, pause=0.01)
    bad = make_job("bad", "fail_with_an_error", tmp_path / "bad")
    with pytest.raises(CourseError) as caught:
        run_jobs([slow, bad, add_job(tmp_path)])
    lines = str(caught.value).splitlines()
    assert lines[0] == "job bad failed: no such flavor: vanilla; choose chocolate"
    assert "log.txt" in lines[1] and len(lines) == 2
    assert not (tmp_path / "slow" / "result.json").exists()
    assert not (tmp_path / "add" / "calls").exists()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("fail_with_a_bug", "IndexError: list index out of range"),
        ("return_a_tensor", "must return values that JSON can hold"),
        ("nonesuch", "nonesuch"),
    ],
)
def test_other_ways_to_fail(tmp_path, function, message, in_process):
    with pytest.raises(CourseError, match=f"(?s)job arm failed: .*{message}"):
        run_jobs([make_job("arm", function, tmp_path / "arm")])


def test_a_failed_job_runs_again_with_resume(tmp_path, in_process):
    bad = make_job("bad", "fail_with_an_error", tmp_path / "bad")
    for _ in range(2):
        with pytest.raises(CourseError, match="vanilla"):
            run_jobs([bad], resume=True)


def wait_for(condition, seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.05)


def test_a_killed_process_is_reported(tmp_path, monkeypatch):
    job = add_job(tmp_path)
    job.folder.mkdir()
    with pytest.raises(CourseError, match=r"job add failed: its process was killed.*memory"):
        jobs._read_result(job, -signal.SIGKILL)
    with pytest.raises(CourseError, match=r"stopped from outside.*RESUME=1"):
        jobs._read_result(job, 130)
    with pytest.raises(CourseError, match="ended with status 3"):
        jobs._read_result(job, 3)
    (job.folder / "error.txt").touch()  # empty, because the disk was full
    monkeypatch.setattr(jobs.shutil, "disk_usage", lambda folder: Namespace(free=1000))
    with pytest.raises(CourseError, match=r"job add failed: the disk that holds .* is full.*RESUME=1"):
        jobs._read_result(job, 1)


def test_an_interrupted_run_continues_to_bit_identical_weights(tmp_path, request):
    (tmp_path / "uncut").mkdir()
    context = RunContext(**job_functions.CONTEXT_ARGUMENTS, folder=tmp_path / "uncut")
    uncut = job_functions.train_small(context, steps=40, pause=0.02)
    small = make_job("small", "train_small", tmp_path / "small", steps=40, pause=0.02)

    def press_ctrl_c_during_training():
        wait_for(lambda: (read_report(small) or {"step": 0})["step"] > 2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press_ctrl_c_during_training).start()
    with pytest.raises(TrainingInterrupted, match=r"by Ctrl-C with 0 of 2 jobs finished.*RESUME=1"):
        run_jobs([small, add_job(tmp_path)], workers=1)
    assert json.loads((small.folder / "job.json").read_text())["seconds"] > 0
    assert len((small.folder / "metrics.jsonl").read_text().splitlines()) < uncut["lines"]

    request.getfixturevalue("in_process")
    resumed = run_jobs([small, add_job(tmp_path)], resume=True)
    assert resumed["small"]["weights"] == uncut["weights"] and resumed["small"]["lines"] == uncut["lines"] == 6
    assert resumed["add"]["sum"] == 3


def test_a_job_stops_when_its_parent_has_ended(tmp_path):
    small = make_job("small", "train_small", tmp_path / "small", steps=100_000, pause=0.01)
    program = (
        "from pathlib import Path; from shared.course.job_spec import Job\nfrom shared.course.jobs import run_jobs\n"
        f"run_jobs([Job('small', {small.function!r}, {small.arguments!r}, Path({str(small.folder)!r}))])"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL, cwd=jobs.ROOT)
    wait_for(lambda: (read_report(small) or {"step": 0})["step"] > 2)
    parent.kill()
    parent.wait()
    wait_for(lambda: (small.folder / "checkpoint.safetensors").exists())  # it has saved before it ends
    step = read_report(small)["step"]
    wait_for(lambda: json.loads((small.folder / "job.json").read_text())["seconds"] > 0)
    assert read_report(small)["step"] < 100_000 and step > 0


def stat_of(process: int) -> str:
    """Return the state of a process as `ps` prints it; empty when it has ended."""
    return subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout.strip()


def test_a_job_does_not_outlive_a_run_that_is_killed_in_its_first_moments(tmp_path):
    """The job's process is still loading PyTorch then, and has not begun to train."""
    small = make_job("small", "train_small", tmp_path / "small", steps=100_000, pause=0.01)
    program = (
        "import os, signal; from pathlib import Path; from shared.course import jobs\n"
        "from shared.course.job_spec import Job\n"
        f"job = Job('small', {small.function!r}, {small.arguments!r}, Path({str(small.folder)!r}))\n"
        "jobs._prepare(job, False)\nprint(jobs._start(job).pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=jobs.ROOT, capture_output=True, text=True)
    job_process_id = int(done.stdout)
    try:
        wait_for(lambda: not stat_of(job_process_id) or stat_of(job_process_id).startswith("Z"), seconds=60)
    except AssertionError:
        os.kill(job_process_id, signal.SIGKILL)
        raise
    assert not (small.folder / "progress.json").exists()


def test_a_job_of_a_run_that_has_ended_does_not_start(tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "shared.course.job_start", str(tmp_path), "999999999"]
    done = subprocess.run(command, cwd=jobs.ROOT, capture_output=True, text=True)
    assert done.returncode == 130 and "torch" not in done.stderr


DAMAGED = ["", '{"sum": ', "[]", "{}", '{"_seconds": "1", "_peak_memory_mb": 1, "_device": "cpu"}', "\x80\x00", "null"]


@pytest.mark.parametrize("content", DAMAGED)
@pytest.mark.parametrize("name", ["result.json", "job.json"])
def test_only_the_job_of_a_damaged_record_runs_again(tmp_path, capsys, in_process, name, content):
    jobs_of_a_run = [add_job(tmp_path), add_job(tmp_path, "more", second=5)]
    results = run_jobs(jobs_of_a_run)
    (tmp_path / "more" / name).write_bytes(content.encode("latin-1"))
    again = run_jobs(jobs_of_a_run, resume=True)
    assert again["add"] == results["add"] and again["more"]["sum"] == 6
    assert (tmp_path / "add" / "calls").read_text() == "x"
    lines = capsys.readouterr().err
    assert f"more: {tmp_path / 'more' / name} is damaged: " in lines and "; this job runs again" in lines
    assert "add: taken from the cache" in lines and "more: taken from the cache" not in lines
    assert json.loads((tmp_path / "more" / "result.json").read_text()) == again["more"]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_report_shows_no_progress(tmp_path, content):
    job = add_job(tmp_path)
    job.folder.mkdir()
    (job.folder / "progress.json").write_bytes(content.encode("latin-1"))
    assert read_report(job) is None


def test_the_terminal_shows_that_an_older_checkpoint_is_used(tmp_path, capsys, in_process, monkeypatch):
    small = make_job("small", "train_small", tmp_path / "small", steps=6, pause=0.0)
    run_jobs([small])
    folder = small.folder
    (folder / "result.json").unlink()
    (folder / "checkpoint.safetensors").replace(folder / "previous-checkpoint.safetensors")
    (folder / "checkpoint.safetensors").write_bytes(b"half")

    def start(job):
        with (folder / "log.txt").open("a") as log, contextlib.redirect_stderr(log):
            return EndedProcess(job_process.run_job(job.folder))

    monkeypatch.setattr(jobs, "_start", start)
    capsys.readouterr()
    run_jobs([small], resume=True)
    lines = capsys.readouterr().err
    assert "small: warning: " in lines and "continuing from previous-checkpoint.safetensors" in lines


def test_a_note_of_several_jobs_is_displayed_once(tmp_path, capsys, monkeypatch):
    both = [make_job(name, "train_small", tmp_path / name, steps=2, pause=0.0) for name in ("first", "second")]

    def start(job):
        with (job.folder / "log.txt").open("a") as log, contextlib.redirect_stderr(log):
            print("note: own images; 1 left out: 1 hidden (.cat.png)", file=sys.stderr)
            print("warning: slow disk", file=sys.stderr)
            return EndedProcess(job_process.run_job(job.folder))

    monkeypatch.setattr(jobs, "_start", start)
    run_jobs(both)
    lines = capsys.readouterr().err
    assert lines.count("1 left out: 1 hidden (.cat.png)") == 1 and lines.count("warning: slow disk") == 2


def test_warnings_and_notes_of_a_job_are_read_once_and_whole(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("warning: of an earlier session\n")
    log = JobLog(tmp_path)
    assert log.new_messages() == []
    with path.open("a") as file:
        file.write("a line\nwarning: first\nwarning: last")
        file.flush()
        assert log.new_messages() == ["warning: first"]
        file.write(" one\nnote: own images\n")
        file.flush()
    assert log.new_messages() == ["warning: last one", "note: own images"] and log.new_messages() == []
    assert JobLog(tmp_path / "nowhere").new_messages() == []


def test_a_folder_with_other_files_is_not_changed(tmp_path):
    (tmp_path / "add").mkdir()
    (tmp_path / "add" / "thesis.txt").write_text("years of work")
    with pytest.raises(CourseError, match=r"no job\.json"):
        run_jobs([add_job(tmp_path)])
    assert (tmp_path / "add" / "thesis.txt").read_text() == "years of work"


def test_invalid_jobs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the same name"):
        run_jobs([add_job(tmp_path), add_job(tmp_path, second=3)])
    with pytest.raises(ValueError, match="the same folder"):
        run_jobs([add_job(tmp_path), make_job("b", "add", tmp_path / "add")])
    with pytest.raises(ValueError, match=r"'add'.*JSON"):
        run_jobs([add_job(tmp_path, second=Path("x"))])
    with pytest.raises(ValueError, match="workers is 0"):
        run_jobs([add_job(tmp_path)], workers=0)


def test_the_text_of_a_bar():
    report = {"label": "teacher", "step": 12, "steps": 40, "loss": 0.52345, "pace": "0:01 left · 52 steps/s"}
    assert format_report(report, 67.2) == "teacher · 12/40 · loss 0.5234 · 0:01 left · 52 steps/s"
    assert format_report(report | {"label": "", "loss": None, "pace": "starting"}, 1) == "12/40 · starting"
    assert format_report(None, 3671) == "1:01:11"
