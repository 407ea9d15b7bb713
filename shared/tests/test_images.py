"""Every image file becomes the image that a person expects, or is refused by name before it costs memory."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from data.datasets.image_folder import read_image
from shared import images
from shared.errors import CourseError
from shared.images import MAX_ASPECT_RATIO, open_image, to_upright_rgb
from shared.serving.settings import Settings

WHITE = [255, 255, 255]


GRAY, COLOR = 0, 2


def png(depth: int, color: int, row: bytes, transparent: bytes) -> io.BytesIO:
    """Return a PNG file of 2 × 1 pixels with a transparent value (chunk tRNS)."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, depth, color, 0, 0, 0)) + chunk(b"tRNS", transparent)
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b""))


def words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


@pytest.mark.parametrize(
    ("file", "opaque"),
    [
        (png(16, GRAY, words(1000, 40000), words(1000)), [156] * 3),
        (png(16, COLOR, words(1000, 2000, 3000, 40000, 20000, 0), words(1000, 2000, 3000)), [156, 78, 0]),
        (png(16, COLOR, words(10, 20, 30, 40000, 20000, 0), words(10, 20, 30)), [156, 78, 0]),
        (png(8, GRAY, bytes([5, 200]), words(5)), [200] * 3),
        (png(8, COLOR, bytes([1, 2, 3, 7, 8, 9]), words(1, 2, 3)), [7, 8, 9]),
        (png(4, GRAY, bytes([0x5A]), words(5)), [170] * 3),
        (png(2, GRAY, bytes([0b01100000]), words(1)), [170] * 3),
        (png(1, GRAY, bytes([0b01000000]), words(0)), WHITE),
        (png(1, GRAY, bytes([0b10000000]), words(1)), [0, 0, 0]),
    ],
    ids=["gray 16", "color 16", "dark color 16", "gray 8", "color 8", "gray 4", "gray 2", "black 1", "white 1"],
)
def test_the_transparent_value_is_white_at_every_depth(file, opaque):
    assert np.asarray(to_upright_rgb(Image.open(file))).tolist() == [[WHITE, opaque]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.float32([0, 0.25, 0.5, 1]), [0, 64, 128, 255]),
        (np.float32([0.1, 0.2, 0.2, 0.2]), [26, 51, 51, 51]),
        (np.float32([0, 51, 102, 255]), [0, 51, 102, 255]),
        (np.float32([-1, 0, 0.5, 1]), [0, 128, 191, 255]),
        (np.float32([0, 1000, 2000, 4000]), [0, 64, 128, 255]),
        (np.int32([0, 51, 102, 200]), [0, 51, 102, 200]),
        (np.int32([0, 65535, 131070, 196605]), [0, 85, 170, 255]),
        (np.int32([-100, 0, 50, 100]), [0, 128, 191, 255]),
        (np.int32([7000, 7000, 7000, 7000]), [255, 255, 255, 255]),
        (np.uint16([0, 256, 32768, 65535]), [0, 1, 128, 255]),
        (np.uint8([0, 1, 2, 255]), [0, 1, 2, 255]),
    ],
)
def test_tiff_files_of_every_number_are_scaled_by_their_range(tmp_path, values, expected):
    Image.fromarray(values[None]).save(tmp_path / "image.tif")
    assert np.asarray(open_image(tmp_path / "image.tif"))[0, :, 0].tolist() == expected


def test_a_graymap_of_sixteen_bits_keeps_its_scale(tmp_path):
    (tmp_path / "dark.pgm").write_bytes(b"P5 2 1 65535\n" + struct.pack(">2H", 0, 32768))
    assert np.asarray(open_image(tmp_path / "dark.pgm"))[0, :, 0].tolist() == [0, 128]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_by_name(tmp_path, value):
    Image.fromarray(np.float32([[0, value]])).save(tmp_path / "map.tif")
    with pytest.raises(CourseError, match=r"map\.tif: unreadable image \(some of its pixels are not finite"):
        open_image(tmp_path / "map.tif")


@pytest.fixture
def no_decoding(monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("the image was decoded"))


@pytest.mark.parametrize("size", [(1, 2000), (2000, 1), (1, MAX_ASPECT_RATIO + 1)])
def test_slim_images_are_refused_before_they_are_decoded(tmp_path, size, no_decoding):
    Image.new("RGB", size).save(tmp_path / "slim.png")
    for read in (open_image, lambda file: read_image(file, 16)):
        with pytest.raises(CourseError, match=r"slim\.png has [\d,]+ × [\d,]+ pixels; the longer side may be at most"):
            read(tmp_path / "slim.png")


def test_large_images_are_refused_before_they_are_decoded(tmp_path, monkeypatch, no_decoding):
    monkeypatch.setattr(images, "MAX_PIXELS", 63)
    Image.new("RGB", (8, 8)).save(tmp_path / "large.png")
    with pytest.raises(CourseError, match=r"large\.png has 8 × 8 pixels; at most 63 are read"):
        open_image(tmp_path / "large.png")


def test_opened_images_and_the_service_have_the_same_limit():
    with pytest.raises(CourseError, match="the image has 1 × 2,000 pixels"):
        open_image(Image.new("RGB", (1, 2000)))
    assert open_image(Image.new("RGB", (1, MAX_ASPECT_RATIO))).size == (1, MAX_ASPECT_RATIO)
    assert Settings().max_aspect_ratio == MAX_ASPECT_RATIO


def test_missing_files_folders_and_foreign_formats_are_named(tmp_path):
    (tmp_path / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    for name, message in {
        "none.png": "none.png does not exist",
        "": "unreadable image",
        "phone.HEIC": r"phone\.HEIC: unreadable image .*convert it to JPEG",
        "x" * 300 + ".png": "unreadable image",
    }.items():
        with pytest.raises(CourseError, match=message):
            open_image(tmp_path / name)
