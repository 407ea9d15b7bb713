"""One's own images: classes, splits, orientation, transparency, and files that are damaged."""

import unicodedata

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


def one_image(file, color=RED):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), color).save(file, "PNG")


@pytest.mark.parametrize("other", ["test", "Test", "TESTING", "val", "Valid", "validation"])
@pytest.mark.parametrize("training", ["train", "Train", "training"])
def test_split_folders_are_no_classes(tmp_path, training, other):
    for number, name in enumerate(("cat", "dog")):
        one_image(tmp_path / training / name / "a.png", (RED, BLUE)[number])
        one_image(tmp_path / other / name / "b.png", (RED, BLUE)[number])
    data = image_folder(tmp_path, 8)
    assert data.class_names == ("cat", "dog") and len(data.train_labels) == len(data.test_labels) == 2
    assert data.note == "own images"


def test_a_third_split_and_other_folders_beside_a_split_are_named(tmp_path):
    for part in ("train", "val", "test", "more"):
        for name in ("cat", "dog"):
            one_image(tmp_path / part / name / f"{part}.png")
    data = image_folder(tmp_path, 8)
    assert len(data.train_labels) == len(data.test_labels) == 2
    assert "4 left out: 4 outside train and test (more/cat/more.png" in data.note and "val/dog/val.png" in data.note


def test_a_training_folder_alone_is_split(tmp_path):
    for number in range(5):
        for name in ("cat", "dog"):
            one_image(tmp_path / "train" / name / f"{number}.png")
    data = image_folder(tmp_path, 8)
    assert data.class_names == ("cat", "dog") and len(data.train_labels) == 8 and len(data.test_labels) == 2


@pytest.mark.parametrize("names", [("train", "bus"), ("train", "bus", "car")])
def test_a_class_may_be_called_train(tmp_path, names):
    for name in names:
        for number in range(2):
            one_image(tmp_path / name / f"{number}.png")
    assert image_folder(tmp_path, 8).class_names == tuple(sorted(names))


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train", "Train", "test"), "Train and train have the same role"),
        (("train", "val", "valid"), "val and valid have the same role"),
        (("val", "test"), "the folders are test, val; expected one called train"),
    ],
)
def test_folders_that_are_no_clear_split_are_refused(tmp_path, folders, message):
    for part in folders:
        for name in ("cat", "dog"):
            one_image(tmp_path / part / name / "a.png")
    with pytest.raises(CourseError, match=message):
        image_folder(tmp_path, 8)


def test_copies_and_links_that_are_no_images_are_left_out_and_named(images):
    clean = image_folder(images, 16)
    for junk in ("cat/.ipynb_checkpoints/0.png", "__MACOSX/cat/1.png", "cat/._0.png", "loose.png"):
        one_image(images / junk)
    (images / "cat" / "dead.png").symlink_to(images / "nowhere.png")
    (images / "cat" / "circle").symlink_to(images)
    data = image_folder(images, 16)
    assert data.class_names == clean.class_names
    np.testing.assert_array_equal(data.train_images, clean.train_images)
    np.testing.assert_array_equal(data.test_images, clean.test_images)
    assert "7 left out" in data.note
    for name in (".ipynb_checkpoints", "__MACOSX", "cat/._0.png", "loose.png", "dead.png", "circle", "notes.txt"):
        assert name in data.note


def test_every_usual_ending_is_an_image(tmp_path):
    endings = ("jpg", "JPG", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff", "avif")
    for name in ("cat", "dog"):
        for ending in endings:
            one_image(tmp_path / name / f"{ending}.{ending}")
    assert len(image_folder(tmp_path, 8, held_out=0.0).train_labels) == 2 * len(endings)
    (tmp_path / "cat" / "phone.HEIC").write_bytes(b"no image")
    with pytest.raises(CourseError, match=r"phone\.HEIC: unreadable image .*; convert it to JPEG"):
        image_folder(tmp_path, 8)
    assert "phone.HEIC" in image_folder(tmp_path, 8, skip_unreadable=True).note


def test_nothing_is_held_out_with_a_fraction_of_0(images):
    data = image_folder(images, 16, held_out=0.0)
    assert data.train_images.shape == (15, 16, 16, 3) and data.test_images.shape == (0, 16, 16, 3)
    for wrong in (1.0, -0.1, float("nan")):
        with pytest.raises(CourseError, match="the held-out fraction is"):
            image_folder(images, 16, held_out=wrong)


def test_class_names_are_equal_in_every_unicode_form(tmp_path):
    for part, form in (("train", "NFD"), ("test", "NFC")):
        for name in ("pat\u00e9", "tea"):
            one_image(tmp_path / part / unicodedata.normalize(form, name) / "a.png")
    assert image_folder(tmp_path, 8).class_names == ("pat\u00e9", "tea")


def test_folders_that_hold_no_data_set_say_why(tmp_path):
    with pytest.raises(CourseError, match="is not a folder"):
        image_folder(tmp_path / "nowhere", 16)
    (tmp_path / "cat").mkdir()
    with pytest.raises(CourseError, match="has no images"):
        image_folder(tmp_path, 16)
    Image.new("L", (8, 8)).save(tmp_path / "cat" / "one.png")
    with pytest.raises(CourseError, match="holds 1 classes"):
        image_folder(tmp_path, 16)
    (tmp_path / "dog").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "dog" / "one.png")
    with pytest.raises(CourseError, match="class 'cat' has 1 images: too few"):
        image_folder(tmp_path, 16)
