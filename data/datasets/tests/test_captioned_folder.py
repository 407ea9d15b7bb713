"""Images with captions, in both forms in which they come."""

import pytest
from PIL import Image

from data.datasets.captioned_folder import captioned_folder, flickr8k
from shared.errors import CourseError


def write(folder, images, table, lines, count=10):
    (folder / images).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (30 + number, 20), (20 * number, 0, 0)).save(folder / images / f"{number}.png")
    (folder / table).write_text("\n".join(lines), encoding="utf-8")


def test_a_table_of_commas(tmp_path):
    lines = ["image,caption"]
    for number in range(10):
        lines += [f'{number}.png,"A dog, number {number} ."', f"{number}.png,the {number}th dog"]
    write(tmp_path, "Images", "captions.txt", lines)
    dataset = captioned_folder(tmp_path, 16)
    assert dataset.train_images.shape == (9, 16, 16, 3) and dataset.test_images.shape == (1, 16, 16, 3)
    assert dataset.test_captions == (("A dog, number 9 .", "the 9th dog"),)
    assert [int(image[0, 0, 0]) for image in dataset.train_images] == [20 * number for number in range(9)]


def test_the_table_of_the_original(tmp_path, monkeypatch):
    lines = [f"{number}.png#{which}\tA dog, {which} of {number}" for number in range(10) for which in (0, 1)]
    write(tmp_path / "flickr8k", "Flicker8k_Dataset", "Flickr8k.token.txt", lines)
    monkeypatch.setenv("MULTIMODAL_DATA", str(tmp_path))
    dataset = flickr8k(16)
    assert dataset.name == "flickr8k" and dataset.train_captions[3] == ("A dog, 0 of 3", "A dog, 1 of 3")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0.png,a dog"], "captions for 1 images"),
        (["0.png,a dog", "1.png"], "row 2: expected an image name and a caption"),
        (["0.png,a dog", "77.png,a cat"], "caption for 77.png, but the image is in none of"),
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
