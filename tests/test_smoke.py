"""Every lesson's smoke preset runs from an empty folder to its claims table, figures and report."""

import json

import pytest

from shared.course import job_process, jobs, run
from shared.course.lesson import lesson_entries, lesson_folder
from shared.course.run import RunRequest, run_lesson

NUMBERS = [entry.number for entry in lesson_entries() if lesson_folder(entry.number)]


class EndedProcess:
    """The process of a job that has run in this one."""

    def __init__(self, returncode: int):
        self.returncode = returncode

    def poll(self) -> int:
        return self.returncode


@pytest.fixture
def empty_course(tmp_path, monkeypatch):
    """Give runs an empty folder, and run each job in this process, because starting PyTorch takes seconds per job."""
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(jobs, "_start", lambda job: EndedProcess(job_process.run_job(job.folder)))
    return tmp_path


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", NUMBERS)
def test_the_smoke_preset_runs_to_its_end(number, empty_course, capsys):
    lesson, result, verdicts = run_lesson(RunRequest(number, preset="smoke"))
    arms = lesson.arms_of("smoke", result.data)
    assert set(result.arms[0]) == {arm.name for arm in arms} and arms
    assert [verdict.claim for verdict in verdicts] == lesson.claims_of("smoke", result.data)
    assert all(verdict.as_expected for verdict in verdicts), "an exact claim does not hold"
    output = capsys.readouterr().out
    titles = {verdict.claim.question for verdict in verdicts if verdict.claim.kind != "exact"} - {""}
    assert titles and all(title in " ".join(output.split()) for title in titles), "a question has no results"
    assert "report and figures: runs/" in output
    assert (result.folder / "report.md").stat().st_size > 1000
    assert len(json.loads((result.folder / "claims.json").read_text())) == len(verdicts) > 0
    figures = {path.stem for path in (result.folder / "figures").glob("*.png")}
    assert figures & lesson.captions.keys()  # those of a lesson's parts are on their own pages
