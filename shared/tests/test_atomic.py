"""Atomic writing: the old file or the new one, and no partial files."""

import errno

import pytest

from shared.atomic import PARTIAL_SUFFIX, atomic_file, remove_partial_files, write_atomically
from shared.errors import CourseError


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "note"
    write_atomically(path, b"old")

    def refuse(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(CourseError, match="Input/output error"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_the_old_file_can_be_kept_as_a_backup(tmp_path):
    write_atomically(tmp_path / "new folder" / "note", b"first", backup=tmp_path / "new folder" / "before")
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["note"]
    write_atomically(tmp_path / "new folder" / "note", b"second", backup=tmp_path / "new folder" / "before")
    assert (tmp_path / "new folder" / "note").read_bytes() == b"second"
    assert (tmp_path / "new folder" / "before").read_bytes() == b"first"


def test_a_file_can_be_written_in_pieces_and_gets_the_permissions_of_a_new_file(tmp_path):
    (tmp_path / "other").touch()
    with atomic_file(tmp_path / "note") as temporary:
        temporary.write_bytes(b"content")
        temporary.chmod(0o600)
        assert not (tmp_path / "note").exists()
    assert (tmp_path / "note").read_bytes() == b"content"
    assert (tmp_path / "note").stat().st_mode == (tmp_path / "other").stat().st_mode
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "note") as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert (tmp_path / "note").read_bytes() == b"content"
    assert {path.name for path in tmp_path.iterdir()} == {"note", "other"}


def test_partial_files_are_removed_and_nothing_else(tmp_path):
    for name in (f"note.4711{PARTIAL_SUFFIX}", "note", "part"):
        (tmp_path / name).write_text("…")
    remove_partial_files(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"note", "part"}
