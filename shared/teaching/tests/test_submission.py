"""Whatever is handed in, only the text of the files with exercises is taken from it."""

import os
import zipfile

import pytest

from shared.errors import CourseError
from shared.teaching import submission
from shared.teaching.submission import find_submissions, names, read_submission

LESSON = "lesson_01_vit"
WANTED = [f"lessons/{LESSON}/reference.py", f"lessons/{LESSON}/model/mae.py"]


def write(path, text="x = 1\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def read(place):
    return read_submission(place, "ann", LESSON, WANTED)


@pytest.mark.parametrize("around", ["", LESSON, "lessons/" + LESSON, f"{LESSON}/lessons/{LESSON}", f"a/b/{LESSON}"])
@pytest.mark.parametrize("zipped", [False, True])
def test_the_lesson_is_found_however_it_is_wrapped(tmp_path, around, zipped):
    place = tmp_path / "class" / (LESSON if not around else "ann")
    write(place / around / "reference.py", "one\r\ntwo\n")
    if zipped:
        with zipfile.ZipFile(tmp_path / "ann.zip", "w") as archive:
            for path in place.rglob("*.py"):
                archive.write(path, path.relative_to(tmp_path / "class"))
        place = tmp_path / "ann.zip"
    found = read(place)
    assert found.files == {WANTED[0]: "one\ntwo\n"}
    assert found.problems == {WANTED[1]: "was not handed in"}


def test_one_and_many(tmp_path):
    write(tmp_path / "ann" / LESSON / "reference.py")
    write(tmp_path / "bob" / "lessons" / LESSON / "reference.py")
    write(tmp_path / "cid.zip")
    write(tmp_path / ".hidden" / "x.py")
    write(tmp_path / "notes.txt")
    (tmp_path / "link").symlink_to(tmp_path / "ann")
    assert [path.name for path in find_submissions(tmp_path, LESSON)] == ["ann", "bob", "cid.zip"]
    assert find_submissions(tmp_path / "ann", LESSON) == [tmp_path / "ann"]
    assert find_submissions(tmp_path / "cid.zip", LESSON) == [tmp_path / "cid.zip"]
    (tmp_path / "empty").mkdir()
    for nothing in ("empty", "nowhere"):
        with pytest.raises(CourseError, match=nothing):
            find_submissions(tmp_path / nothing, LESSON)


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_links_lead_nowhere(tmp_path, linked):
    write(tmp_path / "secret" / "mae.py")
    own = tmp_path / "ann" / LESSON
    write(own / "reference.py")
    if linked == "folder":
        (own / "model").symlink_to(tmp_path / "secret")
    else:
        (own / "model").mkdir()
        (own / "model" / "mae.py").symlink_to(tmp_path / "secret" / "mae.py")
    found = read(tmp_path / "ann")
    assert list(found.files) == WANTED[:1] and "no plain" in found.problems[WANTED[1]]


def test_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / LESSON).mkdir()
    os.mkfifo(tmp_path / LESSON / "reference.py")
    assert "no plain file" in read(tmp_path).problems[WANTED[0]]


@pytest.mark.parametrize("zipped", [False, True])
def test_too_large_or_no_text(tmp_path, zipped):
    contents = {"reference.py": b"#" * (submission.LARGEST + 1), "model/mae.py": b"\xff\xfe"}
    if zipped:
        with zipfile.ZipFile(tmp_path / "ann.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(f"{LESSON}/{name}", content)
    else:
        for name, content in contents.items():
            write(tmp_path / LESSON / name)
            (tmp_path / LESSON / name).write_bytes(content)
    found = read(tmp_path / "ann.zip" if zipped else tmp_path)
    assert not found.files
    assert "larger" in found.problems[WANTED[0]] and "UTF-8" in found.problems[WANTED[1]]


def test_what_is_no_zip_or_no_lesson(tmp_path):
    write(tmp_path / "broken.zip", "no zip")
    write(tmp_path / "other" / "lesson_02_clip" / "x.py")
    for name in ("broken.zip", "other"):
        assert set(read(tmp_path / name).problems) == set(WANTED)


def test_names_are_harmless_and_differ(tmp_path):
    given = ["=HYPERLINK(1)", "[red]x[/]", "a\x1b[31m\nb", "-1+1", "Müller, Jürgen", "x" * 300, "ann", "ANN", "../up"]
    found = names([tmp_path / name for name in given])
    assert len({name.casefold() for name in found}) == len(given)
    for name in found:
        assert name[0] not in "=+-@." and not set(name) & set("=,[]\n\x1b/") and len(name) <= 90
    assert found[6:8] == ["ann", "ANN (2)"]
