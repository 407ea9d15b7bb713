"""A folder of texts from other machines: marks and hidden copies disappear, other encodings are named."""

import codecs

import pytest

from data.datasets.text_folder import text_pieces
from shared.errors import CourseError


def test_texts_are_read_without_marks_and_hidden_copies(tmp_path):
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "a-checkpoint.txt").write_text("a copy")
    (tmp_path / "A.TXT").write_bytes(codecs.BOM_UTF8 + b"one\r\n")
    (tmp_path / "b.txt").write_text("two\n")
    (tmp_path / "again").symlink_to(tmp_path)
    assert text_pieces(f"folder:{tmp_path}") == ["one\ntwo\n"]


def test_another_encoding_is_named_with_its_line(tmp_path):
    (tmp_path / "a.txt").write_bytes("one\ncafé\n".encode("latin-1"))
    with pytest.raises(CourseError, match=r"a\.txt, line 2: the byte 0xe9 is not UTF-8"):
        text_pieces(f"folder:{tmp_path}")
