"""One's own images: classes, splits, orientation, transparency, and files that are damaged."""

import numpy as np
import pytest
from PIL import Image

from data.datasets.image_folder import image_folder, read_image
from shared.errors import CourseError

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture
def images(tmp_path):
    """Ten red cats and five blue dogs, in several formats."""
    for name, color, count in (("cat", RED, 10), ("dog", BLUE, 5)):
        (tmp_path / name).mkdir()
        for number in range(count):
            ending = ("png", "bmp", "webp", "gif")[number % 4]
            Image.new("RGB", (20 + number, 30), color).save(tmp_path / name / f"{number}.{ending}", lossless=True)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    return tmp_path


def test_classes_are_folders_and_a_fifth_of_each_is_held_out(images):
    data = image_folder(images, 16)
    assert data.class_names == ("cat", "dog") and not data.verified
    assert data.train_images.shape == (12, 16, 16, 3) and data.test_images.shape == (3, 16, 16, 3)
    assert sorted(data.test_labels.tolist()) == [0, 0, 1]
    colors = np.array([RED, BLUE])
    for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
        np.testing.assert_array_equal(images, np.broadcast_to(colors[labels][:, None, None], images.shape))


def test_the_same_seed_holds_out_the_same_images(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(10):
            Image.new("L", (8, 8), 20 * number).save(tmp_path / name / f"{number}.png")
    first, again, other = (image_folder(tmp_path, 8, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.test_images, again.test_images)
    assert not np.array_equal(first.test_images, other.test_images)


def test_train_and_test_folders_are_kept(images, tmp_path):
    inner = tmp_path / "sorted"
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (inner / part / name).mkdir(parents=True)
    Image.new("RGB", (9, 9), RED).save(inner / "train/cat/a.png")
    Image.new("RGB", (9, 9), BLUE).save(inner / "train/dog/a.png")
    Image.new("RGB", (9, 9), RED).save(inner / "test/cat/b.png")
    Image.new("RGB", (9, 9), BLUE).save(inner / "test/dog/b.png")
    data = image_folder(inner, 8)
    assert data.train_labels.tolist() == data.test_labels.tolist() == [0, 1]
    (inner / "test/dog/b.png").unlink()
    (inner / "test/dog").rmdir()
    (inner / "test/bird").mkdir()
    Image.new("RGB", (9, 9), BLUE).save(inner / "test/bird/b.png")
    with pytest.raises(CourseError, match="train has the classes cat, dog, test has bird, cat"):
        image_folder(inner, 8)


def test_a_image_is_turned_as_its_camera_noted(tmp_path):
    image = Image.new("RGB", (16, 16), RED)
    image.paste(BLUE, (0, 0, 16, 8))  # blue above
    exif = Image.Exif()
    exif[0x0112] = 6  # upright after a rotation by 90° clockwise
    image.save(tmp_path / "photo.png", exif=exif)
    image = read_image(tmp_path / "photo.png", 16)
    np.testing.assert_array_equal(image[:, 12], np.broadcast_to(BLUE, (16, 3)))  # what was above is right now
    np.testing.assert_array_equal(image[:, 3], np.broadcast_to(RED, (16, 3)))


def test_a_long_image_is_cut_around_its_middle(tmp_path):
    image = Image.new("RGB", (64, 16), RED)
    image.paste(BLUE, (24, 0, 40, 16))
    image.save(tmp_path / "long.png")
    np.testing.assert_array_equal(read_image(tmp_path / "long.png", 16), np.broadcast_to(BLUE, (16, 16, 3)))


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("RGBA", (255, 0, 0, 0), WHITE),
        ("RGBA", (255, 0, 0, 255), RED),
        ("LA", (50, 255), (50, 50, 50)),
        ("I;16", 77 * 256 + 255, (77, 77, 77)),
        ("1", 1, WHITE),
        ("P", 0, (0, 0, 0)),
        ("CMYK", (0, 0, 0, 0), WHITE),
    ],
)
def test_every_kind_of_color_becomes_rgb(tmp_path, mode, color, expected):
    file = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.new(mode, (8, 8), color).save(file)
    np.testing.assert_array_equal(read_image(file, 8), np.broadcast_to(expected, (8, 8, 3)))


def damage(file, how):
    content = file.read_bytes()
    file.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"not a image"}[how])


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "gif", "bmp", "tif"])
@pytest.mark.parametrize("how", ["truncated", "empty", "text"])
def test_a_damaged_image_is_named(tmp_path, ending, how):
    file = tmp_path / f"holiday.{ending}"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(file)
    damage(file, how)
    with pytest.raises(CourseError, match=rf"holiday\.{ending}: unreadable image"):
        read_image(file, 16)


def test_damaged_images_are_refused_or_left_out_and_listed(images):
    damage(images / "cat" / "4.png", "truncated")
    with pytest.raises(CourseError, match=r"4\.png: unreadable"):
        image_folder(images, 16)
    data = image_folder(images, 16, skip_unreadable=True)
    assert len(data.train_labels) + len(data.test_labels) == 14
    assert "1 unreadable" in data.note and "4.png" in data.note


def test_folders_that_hold_no_data_set_say_why(tmp_path):
    with pytest.raises(CourseError, match="is not a folder"):
        image_folder(tmp_path / "nowhere", 16)
    (tmp_path / "cat").mkdir()
    with pytest.raises(CourseError, match="contains no images"):
        image_folder(tmp_path, 16)
    Image.new("L", (8, 8)).save(tmp_path / "cat" / "one.png")
    with pytest.raises(CourseError, match="holds 1 classes"):
        image_folder(tmp_path, 16)
    (tmp_path / "dog").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "dog" / "one.png")
    with pytest.raises(CourseError, match="class 'cat' has 1 images: too few"):
        image_folder(tmp_path, 16)
