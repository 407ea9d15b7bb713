"""Read and write PNG images with `zlib` alone (the format: https://www.w3.org/TR/png-3/).

A PNG file is a signature and a sequence of chunks, each with its length, name and checksum. The data of all IDAT chunks
together is one zlib stream of pixel rows. Before compression a row may be *filtered*: each byte is replaced by its
difference from a prediction made from neighboring bytes, since small differences compress better.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
SAMPLES = {GRAY: 1, RGB: 3, PALETTE: 1, GRAY_ALPHA: 2, RGB_ALPHA: 4}
DEPTHS = {GRAY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GRAY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}
# A file of a few kilobytes can declare an image larger than any memory.
MAX_PIXELS = 50_000_000


@dataclass(frozen=True)
class Image:
    """An image: `values` has `channels` integers per pixel, pixel by pixel and row by row, from 0 to `max_value`.

    One channel is gray, two are gray and alpha, three red, green and blue, four those and alpha.
    Raises ValueError for impossible sizes and a wrong number of values.
    """

    width: int
    height: int
    channels: int
    values: Sequence[int]
    max_value: int = 255

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1 or self.channels not in (1, 2, 3, 4) or self.max_value not in (255, 65535):
            raise ValueError(
                f"an image of {self.width}×{self.height} with {self.channels} channels up to {self.max_value}: "
                "expected at least 1×1, 1 to 4 channels, and values up to 255 or 65535"
            )
        count = self.width * self.height * self.channels
        if len(self.values) != count:
            raise ValueError(
                f"{self.width}×{self.height} pixels with {self.channels} channels need {count} values, "
                f"got {len(self.values)}"
            )


@dataclass(frozen=True)
class _Header:
    """The IHDR chunk: size, bits per sample and color type."""

    width: int
    height: int
    depth: int
    color_type: int

    @property
    def samples(self) -> int:
        return SAMPLES[self.color_type]

    @property
    def full_scale(self) -> int:
        """The largest value of a sample."""
        return (1 << self.depth) - 1


def write(path: str | Path, image: Image) -> None:
    """Write an image. Raises ValueError when a value is outside 0 to `max_value`."""
    if min(image.values) < 0 or max(image.values) > image.max_value:
        raise ValueError(f"values from {min(image.values)} to {max(image.values)}; expected 0 to {image.max_value}")
    depth = 8 if image.max_value == 255 else 16
    color_type = {1: GRAY, 2: GRAY_ALPHA, 3: RGB, 4: RGB_ALPHA}[image.channels]
    samples = bytes(image.values) if depth == 8 else struct.pack(f">{len(image.values)}H", *image.values)
    pixel_bytes = image.channels * depth // 8
    stride = image.width * pixel_bytes
    rows = bytearray()
    above = bytes(stride)
    for start in range(0, len(samples), stride):
        row = samples[start : start + stride]
        rows += _best_filtered(row, above, pixel_bytes)
        above = row
    header = struct.pack(">IIBBBBB", image.width, image.height, depth, color_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows), 9)), (b"IEND", b""))
    Path(path).write_bytes(SIGNATURE + b"".join(_chunk(name, data) for name, data in chunks))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _best_filtered(row: bytes, above: bytes, pixel_bytes: int) -> bytes:
    """Return the row unfiltered, minus its left neighbor, or minus the row above: the one with the smallest values."""
    left = bytes(pixel_bytes) + row[:-pixel_bytes]
    candidates = (
        b"\x00" + row,
        b"\x01" + bytes((x - a) & 255 for x, a in zip(row, left, strict=True)),
        b"\x02" + bytes((x - b) & 255 for x, b in zip(row, above, strict=True)),
    )
    return min(candidates, key=lambda filtered: sum(min(byte, 256 - byte) for byte in filtered[1:]))


def read(path: str | Path) -> Image:
    """Read an image of any color type and depth. A palette becomes RGB, transparency becomes an alpha channel.

    Raises ValueError, naming the file, when it is not a PNG, is damaged or incomplete, or is interlaced.
    """
    try:
        return _decode(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _decode(data: bytes) -> Image:
    header: _Header | None = None
    palette, transparency, stream = b"", None, bytearray()
    for name, body in _read_chunks(data):
        if name == b"IHDR":
            header = _parse_header(body)
        elif header is None:
            raise ValueError(f"damaged: begins with a {name!r} chunk, expected IHDR")
        elif name == b"PLTE":
            palette = body
        elif name == b"tRNS":
            transparency = body
        elif name == b"IDAT":
            stream += body
        elif name[0] & 32 == 0 and name != b"IEND":
            raise ValueError(
                f"contains a critical {name!r} chunk, which is not supported; save it with another program"
            )
    if header is None:
        raise ValueError("damaged: it has no IHDR chunk")
    bits = header.samples * header.depth
    stride = (header.width * bits + 7) // 8
    rows = _unfilter(_inflate(bytes(stream), (stride + 1) * header.height), stride, max(1, bits // 8))
    count = header.width * header.samples
    values = [value for row in rows for value in _unpack(row, header.depth)[:count]]
    if header.color_type == PALETTE:
        return _apply_palette(header, values, palette, transparency)
    if header.depth < 8:
        values = [value * 255 // header.full_scale for value in values]
    if transparency is not None:
        return _apply_transparent_color(header, values, transparency)
    return Image(header.width, header.height, header.samples, values, _max_value(header))


def _max_value(header: _Header) -> int:
    return 65535 if header.depth == 16 else 255


def _read_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and the data of each chunk, up to IEND."""
    if data[:8] != SIGNATURE:
        raise ValueError("not a PNG file (its first 8 bytes differ)")
    position, name = 8, b""
    while name != b"IEND":
        if position + 12 > len(data):
            raise ValueError("incomplete: the file ends before its IEND chunk; fetch it again")
        length, name = struct.unpack(">I4s", data[position : position + 8])
        body = data[position + 8 : position + 8 + length]
        checksum = data[position + 8 + length : position + 12 + length]
        if len(checksum) < 4:
            raise ValueError(f"incomplete: the file ends in its {name!r} chunk; fetch it again")
        if struct.unpack(">I", checksum)[0] != zlib.crc32(name + body):
            raise ValueError(f"damaged: the checksum of its {name!r} chunk does not match; fetch it again")
        yield name, body
        position += 12 + length


def _parse_header(body: bytes) -> _Header:
    if len(body) != 13:
        raise ValueError(f"damaged: its header has {len(body)} bytes, expected 13")
    width, height, depth, color_type, compression, filtering, interlaced = struct.unpack(">IIBBBBB", body)
    supported = color_type in SAMPLES and depth in DEPTHS[color_type]
    if not supported or compression or filtering or not width or not height:
        raise ValueError(f"damaged: no PNG is {width}×{height} with color type {color_type} at {depth} bits")
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}×{height} pixels are more than the {MAX_PIXELS:,} that this reader supports")
    if interlaced:
        raise ValueError("interlaced, which is not supported; save it without interlacing")
    return _Header(width, height, depth, color_type)


def _inflate(stream: bytes, size: int) -> bytes:
    # Decompress no more than the header declares, whatever the stream would expand to.
    decompressor = zlib.decompressobj()
    try:
        rows = decompressor.decompress(stream, size)
    except zlib.error as error:
        raise ValueError(f"damaged: its pixels do not decompress ({error}); fetch it again") from None
    if len(rows) < size:
        raise ValueError(f"incomplete: it has {len(rows)} of {size} bytes of pixels; fetch it again")
    return rows


def _unfilter(data: bytes, stride: int, pixel_bytes: int) -> Iterator[bytearray]:
    """Yield the rows of unfiltered bytes; the same byte of the left neighbor is `pixel_bytes` back."""
    above = bytearray(stride)
    for start in range(0, len(data), stride + 1):
        method, row = data[start], bytearray(data[start + 1 : start + 1 + stride])
        if method == 2:
            row = bytearray((x + b) & 255 for x, b in zip(row, above, strict=True))
        elif method:
            _add_predictions(method, row, above, pixel_bytes)
        yield row
        above = row


def _add_predictions(method: int, row: bytearray, above: bytearray, pixel_bytes: int) -> None:
    """Undo filter 1, 3 or 4 in place: add to each byte its prediction from bytes before it and above."""
    if method not in (1, 3, 4):
        raise ValueError(f"damaged: a row has filter {method}, expected 0 to 4")
    for position in range(len(row)):
        a = row[position - pixel_bytes] if position >= pixel_bytes else 0
        b = above[position]
        if method == 1:
            prediction = a
        elif method == 3:
            prediction = (a + b) // 2
        else:
            # Paeth: of left, above and above-left, the one nearest to left + above - above-left.
            c = above[position - pixel_bytes] if position >= pixel_bytes else 0
            to_a, to_b, to_c = abs(b - c), abs(a - c), abs(a + b - 2 * c)
            prediction = a if to_a <= to_b and to_a <= to_c else b if to_b <= to_c else c
        row[position] = (row[position] + prediction) & 255


def _unpack(row: bytearray, depth: int) -> Sequence[int]:
    """Return the samples of a row: two bytes each at depth 16; below 8, several per byte, leftmost in the high bits."""
    if depth == 8:
        return row
    if depth == 16:
        return struct.unpack(f">{len(row) // 2}H", row)
    full = (1 << depth) - 1
    return [byte >> shift & full for byte in row for shift in range(8 - depth, -1, -depth)]


def _apply_palette(header: _Header, indices: list[int], palette: bytes, transparency: bytes | None) -> Image:
    """Replace each palette index by its color, with an alpha channel if the file has one."""
    if not palette or len(palette) % 3 or max(indices) >= len(palette) // 3:
        raise ValueError(f"damaged: its palette of {len(palette)} bytes has no color {max(indices)}")
    colors: list[tuple[int, ...]] = [tuple(palette[start : start + 3]) for start in range(0, len(palette), 3)]
    if transparency is not None:
        # Alpha is given for the first colors only; the others are opaque.
        alphas = transparency + b"\xff" * len(colors)
        colors = [(*color, alpha) for color, alpha in zip(colors, alphas, strict=False)]
    values = [value for index in indices for value in colors[index]]
    return Image(header.width, header.height, len(colors[0]), values)


def _apply_transparent_color(header: _Header, values: list[int], key: bytes) -> Image:
    """Add an alpha channel: 0 where a pixel has the transparent color `key`, full elsewhere."""
    samples = header.samples
    if samples not in (1, 3) or len(key) != 2 * samples:
        raise ValueError("damaged: its transparent color does not match its color type")
    transparent = struct.unpack(f">{samples}H", key)
    if header.depth < 8:
        transparent = tuple(value * 255 // header.full_scale for value in transparent)
    max_value = _max_value(header)
    result: list[int] = []
    for start in range(0, len(values), samples):
        pixel = tuple(values[start : start + samples])
        result += (*pixel, 0 if pixel == transparent else max_value)
    return Image(header.width, header.height, samples + 1, result, max_value)
