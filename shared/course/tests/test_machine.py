"""The commit that a result records is the course's own, or unknown."""

import subprocess

import pytest

from shared.course import machine


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one commit; the course is in the folder that the test chooses."""
    (tmp_path / "code.py").write_text("x = 1\n")
    for command in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "Begin")):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    return tmp_path


def test_the_commit_is_recorded_with_a_sign_for_changes(repository):
    commit = machine.git_commit()
    assert len(commit) == 10 and not commit.endswith("+")
    (repository / "code.py").write_text("x = 2\n")
    assert machine.git_commit() == f"{commit}+"


def test_the_commit_of_a_repository_around_the_course_is_not_recorded(repository, monkeypatch):
    (repository / "course").mkdir()
    monkeypatch.setattr(machine, "ROOT", repository / "course")
    assert machine.git_commit() == "unknown"


def test_without_git_or_a_repository_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert machine.git_commit() == "unknown"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.git_commit() == "unknown"
    assert machine.describe_machine()["commit"] == "unknown"
