"""Test that only the text of the files with exercises is read from a submission."""

import os
import zipfile

import pytest

from shared.errors import CourseError
from shared.teaching import submission
from shared.teaching.class_folder import find_submissions
from shared.teaching.submission import read_submission, submission_names

LESSON = "lesson_01_vit"
PATHS = [f"lessons/{LESSON}/reference.py", f"lessons/{LESSON}/model/mae.py"]


def write(path, text="x = 1\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def read(place):
    return read_submission(place, "ann", LESSON, PATHS)


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
    result = read(place)
    assert result.files == {PATHS[0]: "one\ntwo\n"}
    assert result.problems == {PATHS[1]: "was not handed in"}


def test_one_submission_or_a_folder_of_many(tmp_path):
    write(tmp_path / "ann" / LESSON / "reference.py")
    write(tmp_path / "bob" / "lessons" / LESSON / "reference.py")
    write(tmp_path / "cid.zip")
    write(tmp_path / ".hidden" / "x.py")
    write(tmp_path / "notes.txt")
    (tmp_path / "link").symlink_to(tmp_path / "ann")
    entries = find_submissions(tmp_path, LESSON)
    assert [each.student for each in entries.hand_ins] == ["ann", "bob", "cid", "link"]
    assert len(entries.notes) == 2 and "hidden" in entries.notes[0] and "notes.txt" in entries.notes[1]
    for name in ("ann", "cid.zip"):
        assert [each.place for each in find_submissions(tmp_path / name, LESSON).hand_ins] == [tmp_path / name]
    assert "link" in read(tmp_path / "link").problems[PATHS[0]]
    (tmp_path / "empty").mkdir()
    for nothing in ("empty", "nowhere"):
        with pytest.raises(CourseError, match=nothing):
            find_submissions(tmp_path / nothing, LESSON)


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_links_are_not_followed(tmp_path, linked):
    write(tmp_path / "secret" / "mae.py")
    own = tmp_path / "ann" / LESSON
    write(own / "reference.py")
    if linked == "folder":
        (own / "model").symlink_to(tmp_path / "secret")
    else:
        (own / "model").mkdir()
        (own / "model" / "mae.py").symlink_to(tmp_path / "secret" / "mae.py")
    result = read(tmp_path / "ann")
    assert list(result.files) == PATHS[:1] and "not a plain" in result.problems[PATHS[1]]


def test_pipe_is_not_opened(tmp_path):
    (tmp_path / LESSON).mkdir()
    os.mkfifo(tmp_path / LESSON / "reference.py")
    assert "not a plain file" in read(tmp_path).problems[PATHS[0]]


@pytest.mark.parametrize("zipped", [False, True])
def test_file_that_is_too_large_or_not_text(tmp_path, zipped):
    contents = {"reference.py": b"#" * (submission.MAX_FILE_SIZE + 1), "model/mae.py": b"\xff\xfe"}
    if zipped:
        with zipfile.ZipFile(tmp_path / "ann.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(f"{LESSON}/{name}", content)
    else:
        for name, content in contents.items():
            write(tmp_path / LESSON / name)
            (tmp_path / LESSON / name).write_bytes(content)
    result = read(tmp_path / "ann.zip" if zipped else tmp_path)
    assert not result.files
    assert "too large" in result.problems[PATHS[0]] and "UTF-8" in result.problems[PATHS[1]]


def test_invalid_zip_or_missing_lesson(tmp_path):
    write(tmp_path / "broken.zip", "no zip")
    write(tmp_path / "other" / "lesson_02_clip" / "x.py")
    for name in ("broken.zip", "other"):
        assert set(read(tmp_path / name).problems) == set(PATHS)


def test_names_are_safe_and_unique():
    stems = ["=HYPERLINK(1)", "[red]x[/]", "a\x1b[31m\nb", "-1+1", "Müller, Jürgen", "x" * 300, "ann", "ANN", "../up"]
    result = submission_names(stems)
    assert len({name.casefold() for name in result}) == len(stems)
    for name in result:
        assert name[0] not in "=+-@." and not set(name) & set("=,[]\n\x1b/") and len(name) <= 90
    assert result[6:8] == ["ann", "ANN (2)"]


OUTSIDE = "shared/finetuning/lora.py"


@pytest.mark.parametrize("around", ["", "lessons/", "work/", f"{LESSON}/lessons/"])
@pytest.mark.parametrize("zipped", [False, True])
def test_files_outside_the_lesson_are_read_beside_it(tmp_path, around, zipped):
    place = tmp_path / "ann"
    write(place / around / LESSON / "reference.py", "inside")
    root = place / around.removesuffix("lessons/")
    write(root / OUTSIDE, "outside")
    if zipped:
        with zipfile.ZipFile(tmp_path / "ann.zip", "w") as archive:
            for path in place.rglob("*.py"):
                archive.write(path, path.relative_to(place))
        place = tmp_path / "ann.zip"
    result = read_submission(place, "ann", LESSON, [PATHS[0], OUTSIDE])
    assert result.files == {PATHS[0]: "inside", OUTSIDE: "outside"}


def test_files_beside_the_submission_are_not_read(tmp_path):
    """A submission that is only the lesson's folder has nothing beside it, whatever lies there."""
    write(tmp_path / "lessons" / LESSON / "reference.py", "inside")
    write(tmp_path / OUTSIDE, "solution")
    for place in (tmp_path / "lessons" / LESSON, tmp_path / "lessons"):
        result = read_submission(place, "ann", LESSON, [PATHS[0], OUTSIDE])
        assert result.files == {PATHS[0]: "inside"} and result.problems == {OUTSIDE: "was not handed in"}


def test_links_outside_the_lesson_are_not_followed(tmp_path):
    write(tmp_path / "secret" / "finetuning" / "lora.py", "solution")
    write(tmp_path / "ann" / "lessons" / LESSON / "reference.py", "inside")
    (tmp_path / "ann" / "shared").symlink_to(tmp_path / "secret")
    result = read_submission(tmp_path / "ann", "ann", LESSON, [OUTSIDE])
    assert not result.files and "not a plain folder" in result.problems[OUTSIDE]
