"""Checkpoints are made whole or not at all, and what has gone stale is named."""

import json

import pytest

from shared.course import checkpoint as room
from shared.course.checkpoint import PROVENANCE, Checkpoint, checkpoint_errors, hash_of, make
from shared.errors import CourseError


def writes(content):
    def make_it(folder):
        (folder / "weights").write_text(content)
        return {"accuracy": 0.9}

    return make_it


PARENT = Checkpoint("parent", "a parent", writes("1"), "1")
CHILD = Checkpoint("child", "a child", writes("2"), "1", parents=("parent",))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "CHECKPOINTS_FOLDER", tmp_path)
    monkeypatch.setattr(room, "checkpoints", lambda: {0: PARENT, 2: CHILD})
    return tmp_path


def test_a_chain_is_made_and_is_whole(place):
    with pytest.raises(CourseError, match="make that first"):
        make(2)
    make(0)
    make(2)
    record = json.loads((place / "child" / PROVENANCE).read_text())
    assert record["made by"] == "make checkpoint-2"
    assert record["measured"] == {"accuracy": 0.9}
    assert record["toy world"] == "1"
    assert record["parents"] == {"parent": hash_of(place / "parent")}
    assert checkpoint_errors([PARENT, CHILD], place) == []
    assert sorted(path.name for path in place.iterdir()) == ["child", "parent"]
    make(0)  # again over the old one
    assert checkpoint_errors([PARENT, CHILD], place) == []


def test_what_is_stale_is_named(place):
    assert checkpoint_errors([PARENT], place) == ["parent is missing"]
    make(0)
    make(2)
    (place / "parent" / "weights").write_text("another")
    found = checkpoint_errors([PARENT, CHILD], place)
    assert len(found) == 2
    assert "parent: its files are not those" in found[0]
    assert "child was made from a parent that has changed since" in found[1]
    (place / "parent" / "weights").write_text("1")
    (place / "child" / "more").write_text("unasked")
    assert ["child: its files are not those" in found for found in checkpoint_errors([PARENT, CHILD], place)] == [True]
    (place / "child" / "more").unlink()
    path = place / "parent" / PROVENANCE
    path.write_text(path.read_text().replace('"toy world": "1"', '"toy world": "0"'))
    assert "made in toy world 0; now it is 1" in checkpoint_errors([PARENT, CHILD], place)[0]
    orphan = Checkpoint("child", "a child", writes("2"), "1")
    assert "other parents" in checkpoint_errors([orphan], place)[0]


def test_what_fails_half_way_leaves_the_old_one(place, monkeypatch):
    make(0)
    before = hash_of(place / "parent")

    def breaks(folder):
        (folder / "weights").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "checkpoints", lambda: {0: Checkpoint("parent", "a parent", breaks, "1")})
    with pytest.raises(KeyboardInterrupt):
        make(0)
    assert hash_of(place / "parent") == before
    assert [path.name for path in place.iterdir()] == ["parent"]


def test_a_lesson_without_one_is_an_error(place):
    with pytest.raises(CourseError, match="lesson 1 keeps no checkpoint; lessons that do: 0, 2"):
        make(1)
