"""Test PNG files against Pillow in both directions, and the errors for damaged files."""

import io
import struct
import zlib
from random import Random

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from shared.stdlib import png
from shared.stdlib.png import Image

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def values(count: int, max_value: int = 255, seed: int = 0) -> list[int]:
    random = Random(seed)
    return [random.randint(0, max_value) for _ in range(count)]


def smooth(width: int, height: int, channels: int) -> numpy.ndarray:
    """Return an image with similar neighbors, so that an encoder uses every kind of filter."""
    y, x, c = numpy.mgrid[0:height, 0:width, 0:channels]
    return ((x * 7 + y * 5 + c * 40 + (x * y) // 9) % 256).astype(numpy.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (64, 33)])
def test_pillow_reads_written_files(tmp_path, channels, size):
    image = Image(*size, channels, values(size[0] * size[1] * channels))
    png.write(tmp_path / "a.png", image)
    with Pillow.open(tmp_path / "a.png") as reference:
        assert (reference.size, reference.mode) == (size, MODES[channels])
        assert numpy.asarray(reference).flatten().tolist() == image.values
    assert png.read(tmp_path / "a.png") == image


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("make", [smooth, lambda w, h, c: numpy.array(values(w * h * c), numpy.uint8).reshape(h, w, c)])
def test_files_written_by_pillow_are_read(tmp_path, channels, make):
    pixels = make(41, 29, channels)
    Pillow.fromarray(pixels.squeeze(), MODES[channels]).save(tmp_path / "a.png", optimize=True)
    image = png.read(tmp_path / "a.png")
    assert (image.width, image.height, image.channels, image.max_value) == (41, 29, channels, 255)
    assert list(image.values) == pixels.flatten().tolist()


def test_sixteen_bits_in_both_directions(tmp_path):
    image = Image(9, 4, 1, values(36, 65535), max_value=65535)
    png.write(tmp_path / "a.png", image)
    with Pillow.open(tmp_path / "a.png") as reference:
        assert numpy.asarray(reference).astype(int).flatten().tolist() == image.values
        reference.save(tmp_path / "b.png")
    assert png.read(tmp_path / "b.png") == png.read(tmp_path / "a.png") == image
    color = Image(3, 2, 4, values(24, 65535), max_value=65535)
    png.write(tmp_path / "c.png", color)
    assert png.read(tmp_path / "c.png") == color


@pytest.mark.parametrize("colors", [2, 4, 16, 256])
@pytest.mark.parametrize("transparent", [False, True])
def test_palettes_of_every_depth(tmp_path, colors, transparent):
    palette_image = Pillow.fromarray(numpy.array(values(13 * 5, colors - 1), numpy.uint8).reshape(5, 13), "P")
    palette_image.putpalette(values(3 * colors, seed=1))
    # Fewer alphas than colors: those without one are opaque.
    alphas = {"transparency": bytes(values(colors // 2, seed=2))} if transparent else {}
    palette_image.save(tmp_path / "a.png", **alphas)
    with Pillow.open(tmp_path / "a.png") as reference:
        expected = reference.convert("RGBA" if transparent else "RGB")
    image = png.read(tmp_path / "a.png")
    assert image.channels == (4 if transparent else 3)
    assert list(image.values) == numpy.asarray(expected).flatten().tolist()


def file_of(
    width: int, height: int, depth: int, kind: int, rows: bytes, *extra: tuple[bytes, bytes], interlaced: int = 0
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return png.SIGNATURE + b"".join(parts)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_gray_of_few_bits_is_scaled_to_the_full_range(tmp_path, depth):
    rows = b"".join(bytes([0, *values((13 * depth + 7) // 8, seed=row)]) for row in range(4))
    data = file_of(13, 4, depth, png.GRAY, rows)
    (tmp_path / "a.png").write_bytes(data)
    with Pillow.open(io.BytesIO(data)) as reference:
        assert list(png.read(tmp_path / "a.png").values) == numpy.asarray(reference.convert("L")).flatten().tolist()


@pytest.mark.parametrize(
    "kind,key,mode", [(png.GRAY, struct.pack(">H", 7), "LA"), (png.RGB, struct.pack(">3H", 1, 2, 3), "RGBA")]
)
def test_one_transparent_color_becomes_alpha(tmp_path, kind, key, mode):
    row = bytes([0, 7, 8, 7]) if kind == png.GRAY else bytes([0, 1, 2, 3, 1, 2, 4, 1, 2, 3])
    data = file_of(3, 1, 8, kind, row, (b"tRNS", key))
    (tmp_path / "a.png").write_bytes(data)
    with Pillow.open(io.BytesIO(data)) as reference:
        assert list(png.read(tmp_path / "a.png").values) == numpy.asarray(reference.convert(mode)).flatten().tolist()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from([0, 1, 2, 3, 4]), min_size=1, max_size=6), st.sampled_from([1, 3, 4]), st.integers(1, 9)
)
def test_every_filter_is_decoded_as_by_pillow(tmp_path_factory, methods, channels, width):
    kind = {1: png.GRAY, 3: png.RGB, 4: png.RGB_ALPHA}[channels]
    rows = b"".join(bytes([method, *values(width * channels, seed=row)]) for row, method in enumerate(methods))
    data = file_of(width, len(methods), 8, kind, rows)
    path = tmp_path_factory.mktemp("png") / "a.png"
    path.write_bytes(data)
    with Pillow.open(io.BytesIO(data)) as reference:
        assert list(png.read(path).values) == numpy.asarray(reference).flatten().tolist()


GOOD = file_of(2, 2, 8, png.GRAY, bytes([0, 1, 2, 0, 3, 4]))


def with_flipped_byte(position: int) -> bytes:
    return GOOD[:position] + bytes([GOOD[position] ^ 1]) + GOOD[position + 1 :]


@pytest.mark.parametrize(
    "data,message",
    [
        (b"", "not a PNG"),
        (b"GIF89a" + bytes(40), "not a PNG"),
        (GOOD[:20], "incomplete"),
        (GOOD[:-12], "incomplete"),
        (GOOD[:-1], "incomplete"),
        (with_flipped_byte(18), "checksum of its b'IHDR'"),
        (with_flipped_byte(45), "checksum of its b'IDAT'"),
        (png.SIGNATURE + GOOD[33:], "expected IHDR"),
        (file_of(2, 2, 8, png.GRAY, bytes(6), interlaced=1), "without interlacing"),
        (file_of(2, 2, 8, png.GRAY, bytes(5)), "5 of 6 bytes"),
        (file_of(2, 2, 8, png.GRAY, bytes([9, 1, 2, 0, 3, 4])), "filter 9"),
        (file_of(2, 2, 3, png.GRAY, bytes(6)), "at 3 bits"),
        (file_of(2, 2, 8, 5, bytes(6)), "color type 5"),
        (file_of(0, 2, 8, png.GRAY, bytes(6)), "0×2"),
        (file_of(60_000, 60_000, 8, png.GRAY, bytes(6)), "more than the"),
        (file_of(2, 1, 8, png.PALETTE, bytes([0, 0, 1]), (b"PLTE", bytes(3))), "no color 1"),
        (file_of(2, 1, 8, png.PALETTE, bytes([0, 0, 1])), "no color 1"),
        (file_of(2, 2, 8, png.GRAY, bytes(6), (b"tRNS", bytes(6))), "transparent color"),
        (file_of(2, 2, 8, png.GRAY, bytes(6), (b"ABCD", b"")), "is not supported"),
        (GOOD.replace(zlib.compress(bytes([0, 1, 2, 0, 3, 4])), bytes(14)), "checksum"),
    ],
)
def test_invalid_file_is_named_with_the_reason(tmp_path, data, message):
    path = tmp_path / "holiday.png"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        png.read(path)
    assert str(path) in str(error.value)


def test_every_truncation_and_every_flipped_byte_is_detected(tmp_path):
    path = tmp_path / "a.png"
    for cut in range(len(GOOD)):
        path.write_bytes(GOOD[:cut])
        with pytest.raises(ValueError, match=r"a\.png"):
            png.read(path)
    for position in range(len(GOOD)):
        path.write_bytes(with_flipped_byte(position))
        with pytest.raises(ValueError, match=r"a\.png"):
            png.read(path)


def test_no_more_is_decompressed_than_the_header_declares(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(file_of(1, 1, 8, png.GRAY, bytes([0, 9]) + bytes(1 << 24)))
    assert list(png.read(path).values) == [9]


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        png.read(tmp_path / "nowhere.png")


@pytest.mark.parametrize(
    "wrong,message",
    [
        (lambda path: Image(2, 2, 1, [0] * 3), "need 4 values, got 3"),
        (lambda path: Image(0, 2, 1, []), "at least 1×1"),
        (lambda path: Image(1, 1, 5, [0] * 5), "1 to 4 channels"),
        (lambda path: Image(1, 1, 1, [0], max_value=100), "255 or 65535"),
        (lambda path: png.write(path, Image(1, 1, 1, [256])), "expected 0 to 255"),
        (lambda path: png.write(path, Image(1, 1, 1, [-1])), "expected 0 to 255"),
    ],
)
def test_invalid_image_is_rejected(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong(tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
