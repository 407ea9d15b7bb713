"""Every file becomes the correct image or an ImageError, with little memory."""

import base64
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, features

from shared.serving.errors import STATUS, ServiceError
from shared.serving.image_texts import bytes_from_base64, bytes_from_data_url
from shared.serving.images import FORMATS, ImageError, count_scans, decode_image
from shared.serving.settings import Settings

SETTINGS = Settings()


# Pillow warns about files that the service refuses; pytest would show the warnings.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")


def photo(width=52, height=36, seed=0) -> Image.Image:
    """Return a smooth image that every rotation and reflection changes."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def file(image: Image.Image, image_format: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def difference(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size and one.mode == other.mode == "RGB"
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


def refusal(data: bytes, settings: Settings = SETTINGS) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, settings)
    assert caught.value.code in STATUS
    return caught.value.code


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_format_is_decoded(image_format):
    options = {"quality": 95} if image_format in ("JPEG", "WEBP", "AVIF") else {}
    assert difference(decode_image(file(photo(), image_format, **options), SETTINGS), photo()) < 6


def test_avif_and_tiff_are_read_where_pillow_reads_them():
    assert ("AVIF" in FORMATS) == features.check("avif")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        data = file(photo(), "TIFF", compression=compression)
        assert difference(decode_image(data, SETTINGS), photo()) == 0
    clear = file(Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "TIFF")
    assert decode_image(clear, SETTINGS).getpixel((2, 2)) == (255, 255, 255)


def test_other_formats_are_refused():
    for image_format in ("JPEG2000", "PPM", "ICO", "PCX", "TGA"):
        assert refusal(file(photo(), image_format)) == "not_an_image"
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


def test_only_the_first_frame_of_an_animation_is_used():
    frames = [photo(seed=seed) for seed in range(3)]
    for image_format in ("GIF", "PNG", "WEBP"):
        data = file(
            frames[0],
            image_format,
            save_all=True,
            append_images=frames[1:],
            **({"quality": 95} if image_format == "WEBP" else {}),
        )
        assert Image.open(io.BytesIO(data)).n_frames == 3
        assert difference(decode_image(data, SETTINGS), frames[0]) < 6 < difference(frames[1], frames[0])


def test_cmyk_becomes_rgb():
    flat = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert decode_image(file(flat, "JPEG", quality=100), SETTINGS).getpixel((4, 4)) == pytest.approx((255, 0, 0), abs=3)
    assert difference(decode_image(file(photo().convert("CMYK"), "JPEG", quality=95), SETTINGS), photo()) < 6


def test_sixteen_bits_of_gray_keep_their_upper_byte():
    levels = np.linspace(0, 65535, 13 * 9).astype(np.uint16).reshape(9, 13)
    read = decode_image(file(Image.fromarray(levels), "PNG"), SETTINGS)
    assert (np.asarray(read) == (levels >> 8)[..., None]).all()


def test_sixteen_bits_of_color_keep_their_upper_byte():
    samples = np.random.default_rng(0).integers(0, 65536, (4, 5, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    read = decode_image(png(5, 4, rows, depth=16, color=2), SETTINGS)
    assert (np.asarray(read) == (samples >> 8)).all()


def png(
    width: int, height: int, rows: bytes, *, depth: int = 8, color: int = 0, transparent: bytes | None = None
) -> bytes:
    """Return a PNG file; `transparent` is the content of its chunk tRNS, the value of transparent pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    end = chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    transparency = b"" if transparent is None else chunk(b"tRNS", transparent)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + transparency + end


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(image_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file(photo(24, 16), image_format, exif=exif, **({} if image_format == "PNG" else {"quality": 95}))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert difference(decode_image(data, SETTINGS), expected) == 0
    if orientation in (5, 6, 7, 8):
        assert expected.size == (16, 24)


def test_damaged_exif_data_is_ignored():
    for note in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"):
        assert difference(decode_image(file(photo(), "JPEG", quality=95, exif=note), SETTINGS), photo()) < 6


def test_transparency_is_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    gray = Image.new("LA", (4, 4), (0, 0))
    palette = Image.new("P", (4, 4), 0)
    for data in (file(clear, "PNG"), file(clear, "WEBP"), file(gray, "PNG"), file(palette, "PNG", transparency=0)):
        assert decode_image(data, SETTINGS).getpixel((2, 2)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("depth", "color", "row", "transparent", "opaque"),
    [
        (1, 0, bytes([0b10000000]), struct.pack(">H", 1), 0),
        (2, 0, bytes([0b01100000]), struct.pack(">H", 1), 170),
        (4, 0, bytes([0x5A]), struct.pack(">H", 5), 170),
        (8, 0, bytes([5, 200]), struct.pack(">H", 5), 200),
        (16, 0, struct.pack(">2H", 1000, 40000), struct.pack(">H", 1000), 156),
        (16, 2, struct.pack(">6H", 1000, 2000, 3000, *[40000] * 3), struct.pack(">3H", 1000, 2000, 3000), 156),
    ],
    ids=["gray 1", "gray 2", "gray 4", "gray 8", "gray 16", "color 16"],
)
def test_the_transparent_value_of_a_png_is_white_at_every_depth(depth, color, row, transparent, opaque):
    """The file has two pixels: the first has the transparent value."""
    data = png(2, 1, b"\0" + row, depth=depth, color=color, transparent=transparent)
    assert np.asarray(decode_image(data, SETTINGS)).tolist() == [[[255] * 3, [opaque] * 3]]


def test_the_smallest_image_and_narrow_images():
    assert decode_image(file(Image.new("RGB", (1, 1), "red"), "PNG"), SETTINGS).getpixel((0, 0)) == (255, 0, 0)
    assert decode_image(file(Image.new("RGB", (100, 1), "red"), "PNG"), SETTINGS).size == (100, 1)
    for size in ((20_000, 1), (1, 20_000), (101, 1)):
        assert refusal(file(Image.new("RGB", size), "PNG")) == "image_too_narrow"


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch):
    """The header declares the size of the decoded image: at the limit it is decoded, above the limit it is not."""
    settings, side = Settings(max_pixels=1_000_000), 1000
    row = b"\0" + bytes(side)
    at_the_limit, above = png(side, side, row * side), png(side, side + 1, row * (side + 1))
    assert len(above) < 5_000
    assert decode_image(at_the_limit, settings).size == (1000, 1000)
    # 34 bytes of WebP that declare 13,000 × 13,000 pixels, and a PNG that declares forty thousand million.
    lossless = bytes([0x2F]) + struct.pack("<I", (13_000 - 1) | (13_000 - 1) << 14)
    webp = b"RIFF" + struct.pack("<I", 4 + 8 + 26) + b"WEBPVP8L" + struct.pack("<I", 26) + lossless + bytes(21)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("decoded"))
    for bomb in (above, webp, png(200_000, 200_000, b"")):
        assert refusal(bomb, settings) == "too_many_pixels"


def test_a_jpeg_with_many_scans_is_refused_before_it_is_decoded(jpeg_with_scans, monkeypatch):
    """A scan of a few bytes passes over all pixels, so that 70 kB would take minutes."""
    most = SETTINGS.max_scans
    assert decode_image(jpeg_with_scans(64, most), SETTINGS).size == (64, 64)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("decoded"))
    for scans in (most + 1, 500, 5000):
        assert refusal(jpeg_with_scans(64, scans)) == "image_too_complex"


def test_scans_are_counted_as_the_decoder_sees_them(jpeg_with_scans):
    gray, color = photo().convert("L"), photo()
    assert count_scans(file(color, "JPEG")) == 1
    assert count_scans(file(gray, "JPEG", progressive=True)) == 6
    assert count_scans(file(color, "JPEG", progressive=True)) == 10
    assert count_scans(file(color, "JPEG", progressive=True, restart_marker_rows=1)) == 10
    data = jpeg_with_scans(16, 40)
    # A thumbnail in the metadata and a second image after the end are not decoded.
    thumbnail = b"\xff\xe1" + (2 + 9 * 99).to_bytes(2, "big") + b"\xff\xda\0\2abcde" * 99
    assert count_scans(data[:2] + thumbnail + data[2:] + data * 3) == 40
    # Fill bytes before a marker and bytes between segments hide nothing.
    assert count_scans(data.replace(b"\xff\xda", b"\0\xff\xff\xff\xda")) == 40
    assert count_scans(data + b"\xff" * 10**6) == 40
    for cut in range(0, len(data), 7):
        assert count_scans(data[:cut]) <= 40


def test_a_compressed_text_chunk_is_not_unpacked_without_limit():
    bomb = b"key\0\0" + zlib.compress(bytes(20_000_000), 9)
    chunk = struct.pack(">I", len(bomb)) + b"zTXt" + bomb + struct.pack(">I", zlib.crc32(b"zTXt" + bomb))
    image = png(1, 1, b"\0\0")
    data = image[:33] + chunk + image[33:]
    tracemalloc.start()
    try:
        assert refusal(data) in ("not_an_image", "broken_image")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_only_large_images_are_reduced():
    settings = Settings(image_side=10)
    assert decode_image(file(photo(40, 20), "PNG"), settings).size == (10, 5)
    assert decode_image(file(photo(40, 20), "JPEG"), settings).size == (10, 5)
    assert decode_image(file(photo(100, 1), "PNG"), settings).size == (10, 1)
    assert difference(decode_image(file(photo(10, 10), "PNG"), settings), photo(10, 10)) == 0
    exact = photo(40, 20).resize((10, 5), Image.Resampling.LANCZOS)
    assert difference(decode_image(file(photo(40, 20), "JPEG", quality=95), settings), exact) < 10


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_file_cut_short_is_refused(image_format):
    data = file(photo(40, 30), image_format)
    complete = decode_image(data, SETTINGS)
    for length in range(0, len(data), max(1, len(data) // 150)):
        try:
            cut = decode_image(data[:length], SETTINGS)
        except ImageError as error:
            assert error.code in ("not_an_image", "broken_image", "too_many_pixels", "image_too_narrow")
        else:
            # A few bytes at the end do not affect the pixels.
            assert length > 0.9 * len(data) and difference(cut, complete) < 3


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_damaged_file_is_an_image_or_an_error(image_format):
    random = np.random.default_rng(0)
    data = np.frombuffer(file(photo(40, 30), image_format), np.uint8)
    settings = Settings(max_pixels=100_000)
    for _ in range(150):
        damaged = data.copy()
        places = random.integers(0, len(data) if random.random() < 0.5 else min(60, len(data)), random.integers(1, 6))
        damaged[places] = random.integers(0, 256, len(places))
        try:
            read = decode_image(damaged.tobytes(), settings)
        except ImageError as error:
            assert "0x" not in error.message and "/" not in error.message
        else:
            assert read.mode == "RGB" and read.width * read.height <= settings.max_pixels


def test_invalid_base64_is_refused():
    data = bytes(range(256))
    text = base64.b64encode(data).decode()
    assert bytes_from_base64(text) == data
    assert bytes_from_base64("\n".join(text[at : at + 76] for at in range(0, len(text), 76)) + "\r\n") == data
    for broken in (text[:-1], text[:-3], "A", "A===", "=", "*" + text[1:], text + "é", "-_-_", "AA==AA=="):
        with pytest.raises(ServiceError) as caught:
            bytes_from_base64(broken)
        assert caught.value.code == "broken_base64"


def test_only_data_urls_of_images_are_read():
    text = base64.b64encode(b"pixels").decode()
    for head in ("data:image/png;base64,", "DATA:image/svg+xml;base64,", "data:image/jpeg;charset=utf-8;base64,"):
        assert bytes_from_data_url(head + text) == b"pixels"
    for url in (
        "data:image/png," + text,
        "data:text/html;base64," + text,
        "data:;base64," + text,
        "http://x/y.png",
        text,
    ):
        with pytest.raises(ServiceError) as caught:
            bytes_from_data_url(url)
        assert caught.value.code == "invalid_request"
