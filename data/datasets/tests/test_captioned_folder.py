"""Images with captions, in both forms in which they come."""

import unicodedata

import pytest
from PIL import Image

from data.datasets.captioned_folder import captioned_folder, flickr8k
from shared.errors import CourseError


def write(folder, images, table, lines, count=10):
    (folder / images).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (30 + number, 20), (20 * number, 0, 0)).save(folder / images / f"{number}.png")
    (folder / table).write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")


def test_a_table_of_commas(tmp_path):
    lines = ["image,caption"]
    for number in range(10):
        lines += [f'{number}.png,"A dog, number {number} ."', f"{number}.png,the {number}th dog"]
    write(tmp_path, "Images", "captions.txt", lines)
    dataset = captioned_folder(tmp_path, 16)
    assert dataset.train_images.shape == (9, 16, 16, 3) and dataset.test_images.shape == (1, 16, 16, 3)
    captions = {(f"A dog, number {number} .", f"the {number}th dog"): 20 * number for number in range(10)}
    for part, images in (
        (dataset.train_captions, dataset.train_images),
        (dataset.test_captions, dataset.test_images),
    ):
        assert [int(image[0, 0, 0]) for image in images] == [captions.pop(each) for each in part]
    assert not captions and dataset.note == ""


def test_the_table_of_the_original(tmp_path, monkeypatch):
    lines = [f"{number}.png#{which}\tA dog, {which} of {number}" for number in range(10) for which in (0, 1)]
    write(tmp_path / "flickr8k", "Flicker8k_Dataset", "Flickr8k.token.txt", lines)
    monkeypatch.setenv("MULTIMODAL_DATA", str(tmp_path))
    dataset = flickr8k(16)
    captions = {*dataset.train_captions, *dataset.test_captions}
    assert dataset.name == "flickr8k" and captions == {(f"A dog, 0 of {n}", f"A dog, 1 of {n}") for n in range(10)}


def test_the_held_out_images_are_drawn_from_the_seed(tmp_path):
    write(tmp_path, "Images", "captions.txt", [f"{number}.png,dog {number}" for number in range(10)])
    splits = [captioned_folder(tmp_path, 8, held_out=0.3, seed=seed) for seed in (0, 0, 1, 2)]
    held_out = [split.test_captions for split in splits]
    assert all(len(each) == 3 for each in held_out) and held_out[0] == held_out[1]
    assert len(set(held_out)) == 3, "each seed holds out others"
    assert sum(("dog 9",) in each for each in held_out[1:]) < 3, "not always the last by name"
    complete = captioned_folder(tmp_path, 8, held_out=0.0)
    assert len(complete.train_captions) == 10 and len(complete.test_images) == 0
    for wrong in (1.0, -0.1, float("nan")):
        with pytest.raises(CourseError, match="held-out fraction"):
            captioned_folder(tmp_path, 8, held_out=wrong)


def test_images_without_caption_and_system_files_are_named(tmp_path):
    write(tmp_path, "Images", "captions.txt", [f"{number}.png,dog {number}" for number in range(9)])
    (tmp_path / "__MACOSX").mkdir()
    note = captioned_folder(tmp_path, 8).note
    assert "2 left out" in note and "without a caption (Images/9.png)" in note and "__MACOSX" in note


@pytest.mark.parametrize(
    ("table", "content"),
    [
        ("captions.csv", "\ufeffImage,Caption\na/1.png,red\nb/1.png,green\npaté#2.png,blue\n"),
        ("captions.txt", "a/1.png;red\r\nb\\1.png;green\r\npaté#2.png;blue\r\n"),
        ("metadata.csv", "file_name,id,text\na/1.png,1,red\nb/1.png,2,green\npaté#2.png,3,blue\n"),
        (
            "metadata.jsonl",
            '{"file_name": "a/1.png", "text": "red"}\n{"file_name": "b/1.png", "text": "green"}\n'
            '{"file_name": "pat\\u00e9#2.png", "text": "blue"}\n',
        ),
        ("Flickr8k.token.txt", "a/1.png#0\tred\nb/1.png#0\tgreen\npaté#2.png#0\tblue\n"),
        ("captions.json", '{"a/1.png": "red", "b/1.png": ["green"], "paté#2.png": "blue"}'),
        (
            "captions.json",
            '[{"image": "a/1.png", "caption": "red"}, {"file_name": "b/1.png", "text": "green"},'
            '{"image": "paté#2.png", "caption": "blue"}]',
        ),
        (
            "captions.json",
            '{"images": [{"id": 1, "file_name": "a/1.png"}, {"id": 2, "file_name": "b/1.png"},'
            '{"id": 3, "file_name": "paté#2.png"}], "annotations": [{"image_id": 1, "caption": "red"},'
            '{"image_id": 2, "caption": "green"}, {"image_id": 3, "caption": "blue"}]}',
        ),
    ],
    ids=["mark and header", "semicolons", "other header", "json lines", "numbered", "mapping", "records", "coco"],
)
def test_tables_of_other_machines_find_their_images(tmp_path, table, content):
    """Equal base names in subfolders, "#" in a name, a name that macOS wrote in decomposed form."""
    colors = {"a/1.png": "red", "b/1.png": "green", unicodedata.normalize("NFD", "paté#2.png"): "blue"}
    for name, color in colors.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), color).save(tmp_path / name)
    (tmp_path / table).write_text(content, encoding="utf-8")
    dataset = captioned_folder(tmp_path, 8, held_out=0.0)
    assert dataset.train_captions == (("red",), ("green",), ("blue",))
    assert [tuple(image[0, 0]) for image in dataset.train_images] == [(255, 0, 0), (0, 128, 0), (0, 0, 255)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0.png,a dog"], "captions for 1 images"),
        (["0.png,a dog", "1.png"], "line 2: expected an image name and a caption"),
        (["0.png,a dog", "1.png,"], r"line 2: the caption of '1\.png' is empty"),
        (["0.png,a dog", "Images/1.png,un chien \udce9"], "line 2: the byte 0xe9 is not UTF-8"),
        (["bild,text", "0.png,a dog"], "line 1 has a caption for bild, but .* a header names its columns"),
        (["0.png,a dog", "77.png,a cat"], "caption for 77.png, but .* has no such image$"),
    ],
)
def test_missing_captions_and_images_are_named(lines, message, tmp_path):
    write(tmp_path, "Images", "captions.txt", lines)
    with pytest.raises(CourseError, match=message):
        captioned_folder(tmp_path, 16)


def test_missing_data_is_answered_with_its_source(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIMODAL_DATA", str(tmp_path))
    with pytest.raises(CourseError, match="distributed on request only"):
        flickr8k(16)
    (tmp_path / "flickr8k").mkdir()
    with pytest.raises(CourseError, match="no caption file"):
        flickr8k(16)
