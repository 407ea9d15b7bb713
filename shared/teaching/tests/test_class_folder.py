"""Test that every entry of an instructor's folder becomes a row or a printed line, whatever students hand in."""

import io
import os
import struct
import tarfile
import zipfile

import pytest

from shared.teaching import archives, class_folder
from shared.teaching.class_folder import find_submissions
from shared.teaching.submission import read_submission

LESSON = "lesson_01_vit"
PATH = f"lessons/{LESSON}/reference.py"


def zipped(path, text="x = 1\n", name=f"{LESSON}/reference.py", method=zipfile.ZIP_DEFLATED):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, text)
    return path


def tarred(path, mode, text="x = 1\n", name=f"./{LESSON}/reference.py"):
    with tarfile.open(path, mode) as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text.encode()))
    return path


def read(place):
    return read_submission(place, "ann", LESSON, [PATH])


def students(place):
    return [each.student for each in find_submissions(place, LESSON).hand_ins]


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damaged_data_is_unreadable_with_its_reason(tmp_path, method):
    path = zipped(tmp_path / "ann.zip", "x = 1\n" * 200, method=method)
    content = bytearray(path.read_bytes())
    start = content.index(b"reference.py") + len("reference.py")
    content[start : start + 20] = b"\xff" * 20
    path.write_bytes(content)
    assert read(path).problems[PATH].startswith("can't be read: the archive is damaged")


def test_unknown_version_method_and_password_are_unreadable(tmp_path):
    content = zipped(tmp_path / "ann.zip").read_bytes()
    directory = content.index(b"PK\x01\x02")
    for offset, value in ((6, 6300), (10, 98), (8, 1)):  # version needed, method of compression, encrypted
        changed = bytearray(content)
        changed[directory + offset : directory + offset + 2] = struct.pack("<H", value)
        if offset != 6:
            changed[offset - 2 : offset] = struct.pack("<H", value)
        (tmp_path / "ann.zip").write_bytes(changed)
        assert read(tmp_path / "ann.zip").problems[PATH].startswith("can't be read:"), offset


@pytest.mark.parametrize("size", [0, 10, 60, 100])
def test_cut_archives_are_unreadable(tmp_path, size):
    for path in (zipped(tmp_path / "ann.zip"), tarred(tmp_path / "ann.tar.gz", "w:gz")):
        path.write_bytes(path.read_bytes()[:size])
        assert read(path).problems[PATH].startswith(("can't be read:", "was not handed in"))


@pytest.mark.parametrize(("suffix", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("TGZ", "w:gz"), ("tar.xz", "w:xz")])
def test_tars_are_read(tmp_path, suffix, mode):
    assert read(tarred(tmp_path / f"ann.{suffix}", mode)).files == {PATH: "x = 1\n"}


def test_zips_with_capitals_and_backslashes_are_read(tmp_path):
    assert read(zipped(tmp_path / "ANN.ZIP", name=f"work\\{LESSON}\\reference.py")).files == {PATH: "x = 1\n"}


def test_archive_that_unpacks_to_a_huge_size_is_unreadable(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_UNPACKED", 2**16)
    path = tarred(tmp_path / "ann.tar.gz", "w:gz", "#" * 2**20)
    assert "unpacks to more" in read(path).problems[PATH]


def test_every_entry_is_a_row_or_a_line(tmp_path):
    zipped(tmp_path / "ann.ZIP")
    tarred(tmp_path / "bob.tar.gz", "w:gz")
    (tmp_path / "cid.7z").write_bytes(b"7z")
    (tmp_path / "dan" / LESSON).mkdir(parents=True)
    (tmp_path / "eve").symlink_to(tmp_path / "dan")
    (tmp_path / "fay.py").write_text("")
    zipped(tmp_path / "Gus Gray_123_assignsubmission_file_" / "work.zip")
    zipped(tmp_path / "hillhal_LATE_11_222_work.zip")
    zipped(tmp_path / "Lesson 1_ivy_attempt_2027-03-01-10-00-00_work.zip")
    (tmp_path / "roster.csv").write_text("")
    (tmp_path / ".DS_Store").write_text("")
    os.mkfifo(tmp_path / "pipe")
    entries = find_submissions(tmp_path, LESSON)
    named = {each.place.name for each in entries.hand_ins}
    for entry in tmp_path.iterdir():
        assert entry.name in named or any(repr(entry.name) in note for note in entries.notes), entry
    rows = {each.student: each for each in entries.hand_ins}
    assert list(rows) == ["Gus Gray", "ivy", "ann", "bob", "cid", "dan", "eve", "fay.py", "hillhal 11"]
    assert rows["hillhal 11"].late and not rows["ivy"].late
    readable = {name for name, each in rows.items() if read(each.place).files}
    assert readable == {"ann", "bob", "Gus Gray", "hillhal 11", "ivy"}
    assert ".7z archives are not read" in read(rows["cid"].place).problems[PATH]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("ann-draft.zip", "ann-final.zip"),
        ("ann.zip", "ann (1).zip"),
        ("ann_v2.zip", "ann_v10.zip"),
        ("hillhal_11_222_work.zip", "hillhal_11_1003_work.zip"),
        ("L_ann_attempt_2027-03-01-10-00-00_x.zip", "L_ann_attempt_2027-03-02-09-00-00_x.zip"),
    ],
)
def test_latest_of_one_student_wins_and_this_is_said(tmp_path, earlier, later):
    zipped(tmp_path / later)
    zipped(tmp_path / earlier)
    zipped(tmp_path / "bob.zip")
    entries = find_submissions(tmp_path, LESSON)
    assert {each.place.name for each in entries.hand_ins} == {later, "bob.zip"}
    assert any(earlier in note and later in note for note in entries.notes)


def test_latest_archive_in_a_folder_is_graded(tmp_path):
    os.utime(zipped(tmp_path / "ann" / "b.zip", "old\n"), (1, 1))
    zipped(tmp_path / "ann" / "a.zip", "new\n")
    assert read(tmp_path / "ann").files == {PATH: "new\n"} and "a.zip" in read(tmp_path / "ann").note


def test_folders_that_are_one_submission_or_many(tmp_path):
    def lesson(*parts):
        folder = tmp_path.joinpath(*parts)
        folder.mkdir(parents=True)
        (folder / "reference.py").write_text("x = 1\n")

    lesson("bundle", LESSON, "lessons", LESSON)
    (tmp_path / "bundle" / LESSON / "shared").mkdir()
    assert students(tmp_path / "bundle" / LESSON) == [LESSON], "a bundle is one submission, not a class"
    lesson("mixed", LESSON)
    lesson("mixed", "ann", LESSON)
    assert students(tmp_path / "mixed") == ["ann", LESSON]
    lesson("class", LESSON, "ann", LESSON)
    lesson("class", LESSON, "bob", "lessons", LESSON)
    assert students(tmp_path / "class" / LESSON) == ["ann", "bob"], "a class in a folder with the lesson's name"
    lesson("one", LESSON)
    assert students(tmp_path / "one") == ["one"] and students(tmp_path / "one" / LESSON) == [LESSON]


def test_names_without_a_platform_are_unchanged(tmp_path):
    for name in ("Müller, Jürgen", "a_b_c", "group 7", "v2", "final"):
        assert class_folder.parse_name(tmp_path / name).student == name
