"""Whatever a stranger calls an image becomes the right picture, or a Problem; and never much memory."""

import base64
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from shared.serving.images import FORMATS, from_base64, from_data_url, picture
from shared.serving.problems import Problem
from shared.serving.settings import Settings

SETTINGS = Settings()


# Pillow warns of what is refused here; pytest hears it all the same.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")


def photo(width=52, height=36, seed=0) -> Image.Image:
    """A smooth picture that no rotation or reflection leaves as it is."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def file(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def difference(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size and one.mode == other.mode == "RGB"
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


def refusal(data: bytes, settings: Settings = SETTINGS) -> str:
    with pytest.raises(Problem) as caught:
        picture(data, settings)
    return caught.value.code


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_its_picture(kind):
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    assert difference(picture(file(photo(), kind, **options), SETTINGS), photo()) < 6


def test_other_formats_are_no_images_here():
    for kind in ("TIFF", "PPM", "ICO", "PCX", "TGA"):
        assert refusal(file(photo(), kind)) == "not_an_image"
    assert refusal(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "not_an_image"
    for data in (
        b"",
        b"\x00",
        b"hello",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"RIFF\x10\0\0\0WEBP",
        b"BM",
    ):
        assert refusal(data) in ("not_an_image", "broken_image"), data


def test_an_animation_gives_its_first_frame():
    frames = [photo(seed=seed) for seed in range(3)]
    for kind in ("GIF", "PNG", "WEBP"):
        data = file(
            frames[0], kind, save_all=True, append_images=frames[1:], **({"quality": 95} if kind == "WEBP" else {})
        )
        assert Image.open(io.BytesIO(data)).n_frames == 3
        assert difference(picture(data, SETTINGS), frames[0]) < 6 < difference(frames[1], frames[0])


def test_cmyk_becomes_red_green_and_blue():
    flat = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert picture(file(flat, "JPEG", quality=100), SETTINGS).getpixel((4, 4)) == pytest.approx((255, 0, 0), abs=3)
    assert difference(picture(file(photo().convert("CMYK"), "JPEG", quality=95), SETTINGS), photo()) < 6


def test_sixteen_bits_keep_their_grays():
    levels = np.linspace(0, 65535, 13 * 9).astype(np.uint16).reshape(9, 13)
    read = picture(file(Image.fromarray(levels), "PNG"), SETTINGS)
    assert (np.asarray(read) == (levels >> 8)[..., None]).all()


def test_sixteen_bits_of_colour():
    samples = np.random.default_rng(0).integers(0, 65536, (4, 5, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    read = picture(png(5, 4, rows, depth=16, colour=2), SETTINGS)
    assert (np.asarray(read) == (samples >> 8)).all()


def png(width: int, height: int, rows: bytes, *, depth: int = 8, colour: int = 0) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    end = chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + end


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file(photo(24, 16), kind, exif=exif, **({} if kind == "PNG" else {"quality": 95}))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert difference(picture(data, SETTINGS), expected) == 0
    if orientation in (5, 6, 7, 8):
        assert expected.size == (16, 24)


def test_an_illegible_note_spoils_no_picture():
    for note in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"):
        assert difference(picture(file(photo(), "JPEG", quality=95, exif=note), SETTINGS), photo()) < 6


def test_transparency_is_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    gray = Image.new("LA", (4, 4), (0, 0))
    palette = Image.new("P", (4, 4), 0)
    for data in (file(clear, "PNG"), file(clear, "WEBP"), file(gray, "PNG"), file(palette, "PNG", transparency=0)):
        assert picture(data, SETTINGS).getpixel((2, 2)) == (255, 255, 255)


def test_the_smallest_picture_and_narrow_ones():
    assert picture(file(Image.new("RGB", (1, 1), "red"), "PNG"), SETTINGS).getpixel((0, 0)) == (255, 0, 0)
    assert picture(file(Image.new("RGB", (100, 1), "red"), "PNG"), SETTINGS).size == (100, 1)
    for size in ((20_000, 1), (1, 20_000), (101, 1)):
        assert refusal(file(Image.new("RGB", size), "PNG")) == "image_too_narrow"


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch):
    """The file's header promises what its few kilobytes would become; at the limit it is decoded, above it is not."""
    settings, side = Settings(pixels=1_000_000), 1000
    row = b"\0" + bytes(side)
    at_the_limit, above = png(side, side, row * side), png(side, side + 1, row * (side + 1))
    assert len(above) < 5_000
    assert picture(at_the_limit, settings).size == (1000, 1000)
    # 34 bytes of WebP that promise 13,000 × 13,000, and a PNG of forty thousand million pixels.
    lossless = bytes([0x2F]) + struct.pack("<I", (13_000 - 1) | (13_000 - 1) << 14)
    webp = b"RIFF" + struct.pack("<I", 4 + 8 + 26) + b"WEBPVP8L" + struct.pack("<I", 26) + lossless + bytes(21)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("decoded"))
    for bomb in (above, webp, png(200_000, 200_000, b"")):
        assert refusal(bomb, settings) == "too_many_pixels"


def test_a_text_that_unpacks_without_end_is_no_picture():
    bomb = b"key\0\0" + zlib.compress(bytes(20_000_000), 9)
    chunk = struct.pack(">I", len(bomb)) + b"zTXt" + bomb + struct.pack(">I", zlib.crc32(b"zTXt" + bomb))
    whole = png(1, 1, b"\0\0")
    data = whole[:33] + chunk + whole[33:]
    tracemalloc.start()
    try:
        assert refusal(data) in ("not_an_image", "broken_image")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_large_pictures_are_reduced_and_small_ones_left():
    settings = Settings(side=10)
    assert picture(file(photo(40, 20), "PNG"), settings).size == (10, 5)
    assert picture(file(photo(40, 20), "JPEG"), settings).size == (10, 5)
    assert picture(file(photo(100, 1), "PNG"), settings).size == (10, 1)
    assert difference(picture(file(photo(10, 10), "PNG"), settings), photo(10, 10)) == 0
    exact = photo(40, 20).resize((10, 5), Image.Resampling.LANCZOS)
    assert difference(picture(file(photo(40, 20), "JPEG", quality=95), settings), exact) < 10


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_cut_short_is_never_half_a_picture(kind):
    data = file(photo(40, 30), kind)
    whole = picture(data, SETTINGS)
    for length in range(0, len(data), max(1, len(data) // 150)):
        try:
            cut = picture(data[:length], SETTINGS)
        except Problem as problem:
            assert problem.code in ("not_an_image", "broken_image", "too_many_pixels", "image_too_narrow")
        else:
            # A few bytes at the end say nothing of the pixels.
            assert length > 0.9 * len(data) and difference(cut, whole) < 3


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_file_is_a_picture_or_a_problem(kind):
    random = np.random.default_rng(0)
    data = np.frombuffer(file(photo(40, 30), kind), np.uint8)
    settings = Settings(pixels=100_000)
    for _ in range(150):
        spoilt = data.copy()
        places = random.integers(0, len(data) if random.random() < 0.5 else min(60, len(data)), random.integers(1, 6))
        spoilt[places] = random.integers(0, 256, len(places))
        try:
            read = picture(spoilt.tobytes(), settings)
        except Problem as problem:
            assert "0x" not in problem.message and "/" not in problem.message
        else:
            assert read.mode == "RGB" and read.width * read.height <= settings.pixels


def test_base64_is_taken_whole_or_not_at_all():
    data = bytes(range(256))
    text = base64.b64encode(data).decode()
    assert from_base64(text) == data
    assert from_base64("\n".join(text[at : at + 76] for at in range(0, len(text), 76)) + "\r\n") == data
    for broken in (text[:-1], text[:-3], "A", "A===", "=", "*" + text[1:], text + "é", "-_-_", "AA==AA=="):
        with pytest.raises(Problem) as caught:
            from_base64(broken)
        assert caught.value.code == "broken_base64"


def test_only_an_image_in_the_request_is_read():
    text = base64.b64encode(b"pixels").decode()
    for head in ("data:image/png;base64,", "DATA:image/svg+xml;base64,", "data:image/jpeg;charset=utf-8;base64,"):
        assert from_data_url(head + text) == b"pixels"
    for url in (
        "data:image/png," + text,
        "data:text/html;base64," + text,
        "data:;base64," + text,
        "http://x/y.png",
        text,
    ):
        with pytest.raises(Problem) as caught:
            from_data_url(url)
        assert caught.value.code == "invalid_request"
