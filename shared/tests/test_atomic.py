import errno

import pytest

from shared.atomic import PARTIAL_SUFFIX, remove_partial_files, write_atomically
from shared.errors import CourseError


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "note"
    write_atomically(path, b"old")

    def refuse(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(CourseError, match="Input/output error"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_the_old_content_can_be_kept(tmp_path):
    write_atomically(tmp_path / "new folder" / "note", b"first", backup=tmp_path / "new folder" / "before")
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["note"]
    write_atomically(tmp_path / "new folder" / "note", b"second", backup=tmp_path / "new folder" / "before")
    assert (tmp_path / "new folder" / "note").read_bytes() == b"second"
    assert (tmp_path / "new folder" / "before").read_bytes() == b"first"


def test_what_a_killed_process_has_left_is_removed_and_nothing_else(tmp_path):
    for name in (f"note.4711{PARTIAL_SUFFIX}", "note", "part"):
        (tmp_path / name).write_text("…")
    remove_partial_files(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"note", "part"}
