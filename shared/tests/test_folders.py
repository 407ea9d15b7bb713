"""One walk for all readers: a fixed order, no system files, no link read twice, and everything left out is named."""

import os
import unicodedata
from pathlib import Path

import pytest

from shared.errors import CourseError
from shared.folders import FileIndex, describe_left_out, folder_fingerprint, walk_folder

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))


def fill(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_files_are_sorted_by_their_composed_names(tmp_path):
    fill(tmp_path, f"{DECOMPOSED}a", f"{COMPOSED}b", "ez", "f", "sub/a")
    names = [unicodedata.normalize("NFC", str(path)) for path in walk_folder(tmp_path).files]
    assert names == ["ez", "f", "sub/a", "éa", "éb"]


def test_system_files_and_hidden_ones_are_left_out_and_named(tmp_path):
    fill(tmp_path, "a.jpg", ".ipynb_checkpoints/a.jpg", "__MACOSX/b.jpg", "in/._a.jpg", "in/.DS_Store", "in/Thumbs.db")
    listing = walk_folder(tmp_path)
    assert listing.files == (Path("a.jpg"),) and listing.folders == (Path("in"),)
    text = describe_left_out(listing.left_out)
    assert text.startswith("5 left out: 5 hidden or made by the system (.ipynb_checkpoints, __MACOSX, in/.DS_Store")


def test_dead_and_circular_links_are_left_out_and_others_followed_once(tmp_path):
    outside = fill(tmp_path / "outside", "far.jpg")
    root = fill(tmp_path / "root", "real/a.jpg")
    for name, target in {
        "dead.jpg": root / "nowhere.jpg",
        "self": root / "self",
        "real/up": root,
        "again": root / "real",
        "linked": outside,
        "one.jpg": outside / "far.jpg",
    }.items():
        (root / name).symlink_to(target)
    listing = walk_folder(root)
    assert [str(path) for path in listing.files] == ["linked/far.jpg", "one.jpg", "real/a.jpg"]
    assert {str(path): why for path, why in listing.left_out.items()} == {
        "again": "link to a folder that is read already",
        "dead.jpg": "dead link",
        "real/up": "link to a folder that is read already",
        "self": "dead link",
    }


def test_other_types_and_pipes_are_left_out(tmp_path):
    fill(tmp_path, "a.JPG", "b.txt", "c")
    os.mkfifo(tmp_path / "d.jpg")
    listing = walk_folder(tmp_path, (".jpg",))
    assert [str(path) for path in listing.files] == ["a.JPG"]
    assert describe_left_out(listing.left_out, names=2) == "3 left out: 3 of another type (b.txt, c, and 1 more)"
    assert describe_left_out({}) == ""


def test_names_that_are_not_utf_8_can_be_printed(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xe9.bin", "wb"):
        pass
    assert describe_left_out(walk_folder(tmp_path, (".jpg",)).left_out).encode().endswith(rb"(\udce9.bin)")
    with pytest.raises(CourseError, match="is not a folder"):
        walk_folder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("files", "name", "path"),
    [
        (["dog.jpg"], "dog.jpg", "dog.jpg"),
        (["dog.jpg"], "./dog.jpg", "dog.jpg"),
        (["Images/dog.jpg"], "dog.jpg", "Images/dog.jpg"),
        (["Images/dog.jpg"], "Images\\dog.jpg", "Images/dog.jpg"),
        (["a/dog.jpg", "b/dog.jpg"], "b/dog.jpg", "b/dog.jpg"),
        (["dog.jpg", "b/dog.jpg"], "dog.jpg", "dog.jpg"),
        ([f"pat{DECOMPOSED}.jpg"], f"pat{COMPOSED}.jpg", f"pat{DECOMPOSED}.jpg"),
        ([f"pat{COMPOSED}.jpg"], f"pat{DECOMPOSED}.jpg", f"pat{COMPOSED}.jpg"),
        (["dog.jpg"], "val2014/dog.jpg", "dog.jpg"),  # the folder itself is called val2014
        (["dog #1.jpg"], "dog #1.jpg", "dog #1.jpg"),
        (["dog.jpg"], "cat.jpg", None),
        (["dog.jpg"], "../val2014/dog.jpg", None),
        (["dog.jpg"], "og.jpg", None),
        (["dog.jpg"], "x" * 5000, None),
        (["dog.jpg"], "a\0b\ud800", None),
    ],
)
def test_a_name_of_a_table_finds_its_file(tmp_path, files, name, path):
    index = FileIndex(walk_folder(fill(tmp_path / "val2014", *files)))
    assert index.find(name) == (None if path is None else Path(path))
    assert index.find(str(tmp_path / "val2014" / files[0])) is None


def test_a_name_that_fits_two_files_is_refused(tmp_path):
    index = FileIndex(walk_folder(fill(tmp_path, "a/dog.jpg", "b/dog.jpg")))
    with pytest.raises(CourseError, match=r"'dog\.jpg' fits a/dog\.jpg, b/dog\.jpg; write the path"):
        index.find("dog.jpg")


def test_the_fingerprint_follows_names_sizes_and_times(tmp_path):
    fill(tmp_path, "a.jpg", "b/c.jpg")
    fingerprints = {folder_fingerprint(tmp_path)}
    assert folder_fingerprint(tmp_path) in fingerprints

    def changes():
        fill(tmp_path, "new.jpg")
        yield
        (tmp_path / "new.jpg").rename(tmp_path / "other.jpg")
        yield
        (tmp_path / "a.jpg").write_text("longer than before")
        yield
        os.utime(tmp_path / "a.jpg", ns=(0, 1))
        yield
        (tmp_path / "b/c.jpg").unlink()
        yield

    for number, _ in enumerate(changes(), 2):
        fingerprints.add(folder_fingerprint(tmp_path))
        assert len(fingerprints) == number
    fill(tmp_path, ".hidden")
    assert folder_fingerprint(tmp_path) in fingerprints
    assert folder_fingerprint(tmp_path / "nowhere") == folder_fingerprint(tmp_path / "nothing")
