"""What a run has measured is printed first, with whole words, whatever happens to the figures and the report."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from shared.course import run as run_module
from shared.course.claims import judge, number
from shared.course.lesson import Arm, Claim, Lesson, Run
from shared.course.report import write_report
from shared.course.run import RunRequest, run_lesson
from shared.course.tables import terminal_results
from shared.errors import CourseError

CLAIM = Claim(
    name="unseen",
    kind="learns",
    sentence="The model answers uncharacteristically complicated questions about held-out combinations.",
    source="here",
    arms=("model",),
    measure=number("model", "accuracy"),
    threshold=0.5,
    baseline=number("model", "baseline"),
    baseline_name="most common answers",
)
MEASURED = {"model": {"accuracy": 0.9, "baseline": 0.25, "_seconds": 1.0, "_peak_memory_mb": 100.0, "_device": "cpu"}}
LESSON = Lesson(
    1, (Arm("model", "a:b", {"cpu": {}}),), (CLAIM,), "unseen", "answers", lambda run: {}, {"cpu": "digits"}
)


def test_verdicts_without_a_terminal_keep_whole_words(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    verdicts = [judge(claim, {0: MEASURED}, judged=True) for claim in (CLAIM, replace(CLAIM, show="points"))]
    console = Console(file=io.StringIO())
    console.print(terminal_results(verdicts))
    words = console.file.getvalue().split()
    for word in f"{CLAIM.sentence} meets answers threshold".split():
        assert word in words, word


@pytest.fixture
def measured_run(monkeypatch, tmp_path):
    """A run of lesson 1 that has just finished measuring."""
    run = Run("cpu", "cpu", "digits", (0,), tmp_path / "run", {0: MEASURED})
    monkeypatch.setattr(run_module, "train_arms", lambda request: run)
    monkeypatch.setattr(run_module, "load_lesson", lambda number: (LESSON, tmp_path))
    monkeypatch.setattr(run_module, "ROOT", tmp_path)
    return run


def test_the_table_is_printed_before_figures_can_fail(measured_run, monkeypatch, capsys):
    def fail(*arguments):
        raise RuntimeError("no figure")

    monkeypatch.setattr(run_module, "draw_figures", fail)
    with pytest.raises(RuntimeError):
        run_lesson(RunRequest(1))
    assert "90.0 %" in capsys.readouterr().out


def test_a_report_that_cannot_be_written_is_one_line_after_the_table(measured_run, capsys):
    measured_run.folder.parent.mkdir(exist_ok=True)
    measured_run.folder.write_text("a file where the folder should be")
    with pytest.raises(CourseError, match=r"^cannot write .*report\.md: "):
        run_lesson(RunRequest(1))
    assert "90.0 %" in capsys.readouterr().out


def test_a_report_without_git_is_complete(measured_run, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    verdicts = [judge(CLAIM, {0: MEASURED}, judged=True)]
    assert "commit unknown" in write_report(LESSON, measured_run, verdicts, [], 1.0).read_text()
