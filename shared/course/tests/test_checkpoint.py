"""Checkpoints are replaced completely or not at all, and outdated ones are reported."""

import json

import pytest

from shared.course import checkpoint as checkpoint_module
from shared.course.checkpoint import (
    PROVENANCE,
    Checkpoint,
    checkpoint_errors,
    checkpoint_folder,
    checkpoint_hash,
    checkpoint_target,
    checkpoints,
    train_checkpoint,
)
from shared.errors import CourseError


def write_weights(content):
    def train(folder):
        (folder / "weights").write_text(content)
        return {"accuracy": 0.9}

    return train


PARENT = Checkpoint("parent", "a parent", write_weights("1"), "1")
CHILD = Checkpoint("child", "a child", write_weights("2"), "1", parents=("parent",))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "CHECKPOINTS_FOLDER", tmp_path)
    monkeypatch.setattr(checkpoint_module, "checkpoints", lambda: {"0": PARENT, "2": CHILD})
    return tmp_path


def test_a_chain_of_checkpoints_is_trained_without_errors(folder):
    with pytest.raises(CourseError, match="train that first"):
        train_checkpoint("2")
    train_checkpoint("0")
    train_checkpoint("2")
    record = json.loads((folder / "child" / PROVENANCE).read_text())
    assert record["made by"] == "make checkpoint-2"
    assert record["measured"] == {"accuracy": 0.9}
    assert record["toy world"] == "1"
    assert record["parents"] == {"parent": checkpoint_hash(folder / "parent")}
    assert checkpoint_errors([PARENT, CHILD], folder) == []
    assert sorted(path.name for path in folder.iterdir()) == ["child", "parent"]
    train_checkpoint("0")  # again over the old one
    assert checkpoint_errors([PARENT, CHILD], folder) == []


def test_outdated_checkpoints_are_reported(folder):
    assert checkpoint_errors([PARENT], folder) == ["parent is missing"]
    train_checkpoint("0")
    train_checkpoint("2")
    (folder / "parent" / "weights").write_text("another")
    errors = checkpoint_errors([PARENT, CHILD], folder)
    assert len(errors) == 2
    assert "parent: its files differ" in errors[0]
    assert "child was trained from parent, which has changed since" in errors[1]
    (folder / "parent" / "weights").write_text("1")
    (folder / "child" / "more").write_text("added later")
    assert ["child: its files differ" in error for error in checkpoint_errors([PARENT, CHILD], folder)] == [True]
    (folder / "child" / "more").unlink()
    path = folder / "parent" / PROVENANCE
    path.write_text(path.read_text().replace('"toy world": "1"', '"toy world": "0"'))
    assert "trained on toy world 0; the current version is 1" in checkpoint_errors([PARENT, CHILD], folder)[0]
    orphan = Checkpoint("child", "a child", write_weights("2"), "1")
    assert "other parents" in checkpoint_errors([orphan], folder)[0]


def test_an_interrupted_training_leaves_the_old_checkpoint(folder, monkeypatch):
    train_checkpoint("0")
    before = checkpoint_hash(folder / "parent")

    def interrupt(folder):
        (folder / "weights").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(
        checkpoint_module, "checkpoints", lambda: {"0": Checkpoint("parent", "a parent", interrupt, "1")}
    )
    with pytest.raises(KeyboardInterrupt):
        train_checkpoint("0")
    assert checkpoint_hash(folder / "parent") == before
    assert [path.name for path in folder.iterdir()] == ["parent"]


def test_checkpoints_are_called_by_their_lesson_or_their_name():
    assert checkpoint_target("lesson_05_llava") == "5"
    assert checkpoint_target("judge") == "judge"
    targets = list(checkpoints())
    assert targets[-1] == "judge"
    assert targets[:-1] == sorted(targets[:-1], key=int)
    for target, checkpoint in checkpoints().items():
        assert checkpoint_target(checkpoint.name) == target


def test_a_missing_checkpoint_names_the_command_that_makes_it(folder):
    with pytest.raises(CourseError, match="judge does not exist; make it with `make checkpoint-judge`"):
        checkpoint_folder("judge")
    with pytest.raises(CourseError, match="make checkpoint-7`"):
        checkpoint_folder("lesson_07_recipes")


def test_a_lesson_without_a_checkpoint_is_an_error(folder):
    with pytest.raises(CourseError, match="there is no checkpoint '1'; choose one of 0, 2"):
        train_checkpoint("1")
