"""Pictures as PNG files, read and written with nothing but `zlib` (the format: https://www.w3.org/TR/png-3/).

A PNG file is a signature and a row of chunks, each with its length, its name and a checksum. The pixels of all the IDAT
chunks together are one zlib stream of rows. Before a row is compressed it may be *filtered*: each byte is replaced by its difference from
a guess made out of the neighbors already seen, because small differences compress better than the bytes themselves.
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
# A few kilobytes can promise a picture larger than any memory.
MOST_PIXELS = 50_000_000


@dataclass(frozen=True)
class Image:
    """A picture: `values` holds `channels` whole numbers a pixel, pixel by pixel and row by row, from 0 to `brightest`.

    One channel is gray, two gray and alpha, three red, green, blue, four those and alpha. Raises ValueError when they don't fit.
    """

    width: int
    height: int
    channels: int
    values: Sequence[int]
    brightest: int = 255

    def __post_init__(self):
        if self.width < 1 or self.height < 1 or self.channels not in (1, 2, 3, 4) or self.brightest not in (255, 65535):
            raise ValueError(
                f"an image of {self.width}×{self.height} with {self.channels} channels up to {self.brightest}: expected at least "
                "1×1, 1 to 4 channels, and values up to 255 or 65535"
            )
        count = self.width * self.height * self.channels
        if len(self.values) != count:
            raise ValueError(
                f"{self.width}×{self.height} pixels of {self.channels} make {count} values, not {len(self.values)}"
            )


def write(path: str | Path, image: Image) -> None:
    """Write an image. Raises ValueError when a value lies outside 0 to `brightest`."""
    if min(image.values) < 0 or max(image.values) > image.brightest:
        raise ValueError(f"values from {min(image.values)} to {max(image.values)}; expected 0 to {image.brightest}")
    depth = 8 if image.brightest == 255 else 16
    kind = {1: GRAY, 2: GRAY_ALPHA, 3: RGB, 4: RGB_ALPHA}[image.channels]
    samples = bytes(image.values) if depth == 8 else struct.pack(f">{len(image.values)}H", *image.values)
    step = image.channels * depth // 8
    stride = image.width * step
    rows = bytearray()
    above = bytes(stride)
    for start in range(0, len(samples), stride):
        row = samples[start : start + stride]
        rows += _best_filtered(row, above, step)
        above = row
    header = struct.pack(">IIBBBBB", image.width, image.height, depth, kind, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows), 9)), (b"IEND", b""))
    Path(path).write_bytes(SIGNATURE + b"".join(_chunk(name, data) for name, data in chunks))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _best_filtered(row: bytes, above: bytes, step: int) -> bytes:
    """The row as it is, less its left neighbor, or less the row above: whichever leaves the smallest numbers."""
    left = bytes(step) + row[:-step]
    candidates = (
        b"\x00" + row,
        b"\x01" + bytes((x - a) & 255 for x, a in zip(row, left, strict=True)),
        b"\x02" + bytes((x - b) & 255 for x, b in zip(row, above, strict=True)),
    )
    return min(candidates, key=lambda filtered: sum(min(byte, 256 - byte) for byte in filtered[1:]))


def read(path: str | Path) -> Image:
    """Read an image of any colour type and depth. A palette becomes RGB, transparency becomes an alpha channel.

    Raises ValueError, naming the file, when it is no PNG, is damaged or cut short, or is interlaced.
    """
    try:
        return _decode(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _decode(data: bytes) -> Image:
    width = height = depth = kind = None
    palette, transparent, stream = b"", None, bytearray()
    for name, body in _chunks(data):
        if name == b"IHDR":
            width, height, depth, kind = _header(body)
        elif width is None:
            raise ValueError(f"damaged: begins with a {name!r} chunk where IHDR was expected")
        elif name == b"PLTE":
            palette = body
        elif name == b"tRNS":
            transparent = body
        elif name == b"IDAT":
            stream += body
        elif name[0] & 32 == 0 and name != b"IEND":
            raise ValueError(
                f"holds a {name!r} chunk, which a reader must understand and this one does not; save it anew"
            )
    samples = SAMPLES[kind]
    stride = (width * samples * depth + 7) // 8
    rows = _unfilter(_inflate(bytes(stream), (stride + 1) * height), stride, max(1, samples * depth // 8))
    values = [value for row in rows for value in _unpack(row, depth)[: width * samples]]
    if kind == PALETTE:
        return _paint(width, height, values, palette, transparent)
    if depth < 8:
        full = (1 << depth) - 1
        values = [value * 255 // full for value in values]
    brightest = 65535 if depth == 16 else 255
    if transparent is None:
        return Image(width, height, samples, values, brightest)
    return _cut_out(width, height, samples, values, brightest, depth, transparent)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    if data[:8] != SIGNATURE:
        raise ValueError("not a PNG file (its first 8 bytes are others)")
    position, name = 8, b""
    while name != b"IEND":
        if position + 12 > len(data):
            raise ValueError("cut short: the file ends before its IEND chunk; fetch it again")
        length, name = struct.unpack(">I4s", data[position : position + 8])
        body = data[position + 8 : position + 8 + length]
        check = data[position + 8 + length : position + 12 + length]
        if len(check) < 4:
            raise ValueError(f"cut short inside its {name!r} chunk; fetch it again")
        if struct.unpack(">I", check)[0] != zlib.crc32(name + body):
            raise ValueError(f"damaged: the checksum of its {name!r} chunk does not fit; fetch it again")
        yield name, body
        position += 12 + length


def _header(body: bytes) -> tuple[int, int, int, int]:
    if len(body) != 13:
        raise ValueError(f"damaged: its header is {len(body)} bytes long, not 13")
    width, height, depth, kind, compression, filtering, interlaced = struct.unpack(">IIBBBBB", body)
    if kind not in SAMPLES or depth not in DEPTHS[kind] or compression or filtering or not width or not height:
        raise ValueError(f"damaged: no PNG is {width}×{height} with colour type {kind} at {depth} bits")
    if width * height > MOST_PIXELS:
        raise ValueError(
            f"{width}×{height} pixels, more than the {MOST_PIXELS:,} that lists of Python numbers have room for"
        )
    if interlaced:
        raise ValueError("interlaced, which this reader does not undo; save it without interlacing")
    return width, height, depth, kind


def _inflate(stream: bytes, size: int) -> bytes:
    # No more than the header promises is ever unpacked, whatever the stream would grow to.
    unpacker = zlib.decompressobj()
    try:
        rows = unpacker.decompress(stream, size)
    except zlib.error as error:
        raise ValueError(f"damaged: its pixels do not decompress ({error}); fetch it again") from None
    if len(rows) < size:
        raise ValueError(f"cut short: {len(rows)} of {size} bytes of pixels are there; fetch it again")
    return rows


def _unfilter(data: bytes, stride: int, step: int) -> Iterator[bytearray]:
    """Rows of plain bytes; `step` is how many bytes back the left neighbor's same byte lies."""
    above = bytearray(stride)
    for start in range(0, len(data), stride + 1):
        method, row = data[start], bytearray(data[start + 1 : start + 1 + stride])
        if method == 2:
            row = bytearray((x + b) & 255 for x, b in zip(row, above, strict=True))
        elif method:
            _add_guesses(method, row, above, step)
        yield row
        above = row


def _add_guesses(method: int, row: bytearray, above: bytearray, step: int) -> None:
    if method not in (1, 3, 4):
        raise ValueError(f"damaged: filter {method} in a row, of 0 to 4")
    for position in range(len(row)):
        a = row[position - step] if position >= step else 0
        b = above[position]
        if method == 1:
            guess = a
        elif method == 3:
            guess = (a + b) // 2
        else:
            # Paeth: of left, above and above-left, the one nearest to left + above - above-left.
            c = above[position - step] if position >= step else 0
            to_a, to_b, to_c = abs(b - c), abs(a - c), abs(a + b - 2 * c)
            guess = a if to_a <= to_b and to_a <= to_c else b if to_b <= to_c else c
        row[position] = (row[position] + guess) & 255


def _unpack(row: bytearray, depth: int) -> Sequence[int]:
    """The samples of a row: two bytes each at depth 16, several a byte below 8, the leftmost in the highest bits."""
    if depth == 8:
        return row
    if depth == 16:
        return struct.unpack(f">{len(row) // 2}H", row)
    full = (1 << depth) - 1
    return [byte >> shift & full for byte in row for shift in range(8 - depth, -1, -depth)]


def _paint(width: int, height: int, indices: list[int], palette: bytes, transparent: bytes | None) -> Image:
    if not palette or len(palette) % 3 or max(indices) >= len(palette) // 3:
        raise ValueError(f"damaged: its palette of {len(palette)} bytes has no colour {max(indices)}")
    colours = [tuple(palette[start : start + 3]) for start in range(0, len(palette), 3)]
    if transparent is not None:
        # Alpha is given for the first colours only; the others are opaque.
        alphas = transparent + b"\xff" * len(colours)
        colours = [(*colour, alpha) for colour, alpha in zip(colours, alphas, strict=False)]
    return Image(width, height, len(colours[0]), [value for index in indices for value in colours[index]])


def _cut_out(width: int, height: int, samples: int, values: list[int], brightest: int, depth: int, key: bytes) -> Image:
    """Make one colour, the key, see-through: an alpha channel of 0 where a pixel has it and full elsewhere."""
    if samples not in (1, 3) or len(key) != 2 * samples:
        raise ValueError("damaged: its transparent colour does not fit its colour type")
    wanted = struct.unpack(f">{samples}H", key)
    if depth < 8:
        wanted = tuple(value * 255 // ((1 << depth) - 1) for value in wanted)
    result = []
    for start in range(0, len(values), samples):
        pixel = tuple(values[start : start + samples])
        result += (*pixel, 0 if pixel == wanted else brightest)
    return Image(width, height, samples + 1, result, brightest)
