"""Scenes as pixels, computed in integers with the standard library only: identical on every machine.

A sprite (one object at one image size) is rasterized once: each pixel is divided into 4 × 4 samples, and each sample
is tested against the shape, its edge and its texture. A scene is then composed from sprites over a background.
`data.toybox.image` composes the same sprites with numpy, about a hundred times faster.
"""

from functools import cache
from typing import NamedTuple

from data.toybox.scene import BACKGROUNDS, WIDTH, WORLD, Scene, SceneObject

# Distinguishable for people with red-, green- or blue-blindness too (see the test).
INK = {
    "red": (180, 8, 24),
    "orange": (224, 114, 10),
    "yellow": (250, 204, 8),
    "green": (24, 164, 102),
    "blue": (16, 62, 220),
    "purple": (112, 32, 140),
    "pink": (238, 120, 204),
    "black": (40, 40, 46),
}
# Background tints, light enough for every ink to stand out.
PAPER = (
    (246, 243, 235),
    (238, 242, 246),
    (240, 246, 238),
    (247, 239, 238),
    (236, 236, 236),
    (250, 250, 250),
    (232, 240, 242),
    (244, 238, 246),
    (228, 230, 236),
    (236, 232, 222),
    (226, 236, 228),
    (240, 228, 224),
)
assert len(PAPER) == BACKGROUNDS

SAMPLES = 4  # samples along each side of a pixel
FULL = SAMPLES * SAMPLES
SMALLEST = 16

# Corners of a five-pointed star in thousandths of half the width, y down.
_STAR = (
    (0, -1060),
    (347, -477),
    (1008, -328),
    (561, 182),
    (623, 858),
    (0, 590),
    (-623, 858),
    (-561, 182),
    (-1008, -328),
    (-347, -477),
)


def _in_star(x: int, y: int, h: int) -> bool:
    """Even-odd rule: a ray to the right crosses the outline an odd number of times."""
    x, y = 1000 * x, 1000 * y - 100 * h
    inside = False
    for (x0, y0), (x1, y1) in zip(_STAR, _STAR[1:] + _STAR[:1], strict=True):
        x0, y0, x1, y1 = x0 * h, y0 * h, x1 * h, y1 * h
        if (y0 > y) != (y1 > y):
            # x < x0 + (y − y0)(x1 − x0) / (y1 − y0), without the division
            left, right = (x - x0) * (y1 - y0), (y - y0) * (x1 - x0)
            inside ^= left < right if y1 > y0 else left > right
    return inside


def _in_square(x: int, y: int, h: int) -> bool:
    """Smaller than its box by whole pixels (8 units each), so that its sides stay sharp."""
    return max(abs(x), abs(y)) <= h - 8 * (h // 44)


def _in_cross(x: int, y: int, h: int) -> bool:
    """Arms of whole pixels, as even or odd in number as the box."""
    width = h // 4
    return min(abs(x), abs(y)) <= 4 * (2 * (3 * width // 14) + width % 2)


def _in_moon(x: int, y: int, h: int) -> bool:
    """A disc that a smaller one is cut out of."""
    return x * x + y * y <= h * h and (20 * x - 14 * h) ** 2 + (20 * y) ** 2 > (13 * h) ** 2


def _in_heart(x: int, y: int, h: int) -> bool:
    x, y = abs(x), y + h // 20
    lobe = (100 * x - 48 * h) ** 2 + (100 * y + 38 * h) ** 2 <= (52 * h) ** 2
    point = 100 * y >= -25 * h and 118 * x + 96 * y <= 96 * h and 100 * x <= 99 * h
    return lobe or point


# Whether the point (x, y), counted from the middle with y down, lies in the shape of half-width h.
_INSIDE = {
    "circle": lambda x, y, h: x * x + y * y <= h * h,
    "square": _in_square,
    "triangle": lambda x, y, h: 10 * y <= 9 * h and 19 * abs(x) <= 10 * (y + h),
    "diamond": lambda x, y, h: abs(x) + abs(y) <= h,
    "cross": _in_cross,
    "star": _in_star,
    "heart": _in_heart,
    "moon": _in_moon,
}


class Sprite(NamedTuple):
    """One object's pixels: the background's share (0 … 16) and what is added to it, row by row.

    A pixel becomes (keep · background + ink) >> 4 in each of red, green and blue.
    """

    width: int
    keep: tuple[int, ...]
    ink: tuple[int, ...]


def size_in_pixels(object_size: str, image_size: int) -> int:
    """Return the width in pixels of a small or large object in an image of `image_size` pixels."""
    return WIDTH[object_size] * image_size // WORLD


def corner(scene_object: SceneObject, image_size: int) -> tuple[int, int]:
    """Return the leftmost column and the topmost row of the object's sprite."""
    half = WIDTH[scene_object.size] // 2
    return (scene_object.x - half) * image_size // WORLD, (scene_object.y - half) * image_size // WORLD


@cache
def _mask(shape: str, width: int, thick: int) -> tuple[list[bytearray], list[bytearray]]:
    """Return masks of the samples in the shape, and of those in its edge, which is `thick` samples wide."""
    side, inside = SAMPLES * width, _INSIDE[shape]
    # Centers of the samples relative to the sprite's center, in half samples.
    middles = [2 * k + 1 - side for k in range(side)]
    body = [bytearray(inside(x, y, side) for x in middles) for y in middles]
    around = [
        (dx, dy)
        for dx in range(-thick, thick + 1)
        for dy in range(-thick, thick + 1)
        if (thick - 1) ** 2 < dx * dx + dy * dy <= thick * thick
    ]
    edge = [bytearray(side) for _ in range(side)]
    for y in range(side):
        for x in range(side):
            if body[y][x]:
                edge[y][x] = any(
                    not (0 <= x + dx < side and 0 <= y + dy < side and body[y + dy][x + dx]) for dx, dy in around
                )
    return body, edge


def _is_light(texture: str, x: int, y: int, width: int) -> bool:
    """Return whether sample (x, y) of a striped or dotted object has the light color."""
    if texture == "striped":
        band = SAMPLES * max(1, (2 * width + 7) // 14)
        middle = SAMPLES * width // 2
        return (y - middle + band // 2) // band % 2 == 1
    if texture == "dotted":
        period = SAMPLES * max(2, (3 * width + 7) // 13)
        start = (SAMPLES * width - period // 2) // 2 % period
        dx, dy = 2 * ((x - start) % period) + 1 - period // 2, 2 * ((y - start) % period) + 1 - period // 2
        return dx * dx + dy * dy <= (period // 2 + 1) ** 2
    return False


@cache
def _coverage(shape: str, texture: str, width: int) -> tuple[tuple[int, int, int], ...]:
    """Return the number of samples per pixel that have the ink, its dark edge and its light tint."""
    # About an eleventh of the width. In a small image the edge stays thin, so that the texture remains visible.
    thick = max(SAMPLES if texture == "hollow" else SAMPLES // 2, SAMPLES * width // 11)
    body, edge = _mask(shape, width, thick)
    coverage = []
    for row in range(width):
        for column in range(width):
            ink = dark = light = 0
            for y in range(SAMPLES * row, SAMPLES * row + SAMPLES):
                for x in range(SAMPLES * column, SAMPLES * column + SAMPLES):
                    if edge[y][x]:
                        dark += 1
                    elif body[y][x] and texture != "hollow":
                        if _is_light(texture, x, y, width):
                            light += 1
                        else:
                            ink += 1
            coverage.append((ink, dark, light))
    return tuple(coverage)


@cache
def sprite(shape: str, color: str, texture: str, width: int) -> Sprite:
    """Return the sprite of an object that is `width` pixels wide."""
    plain = INK[color]
    # A hollow object consists of its edge, which therefore has the ink itself.
    dark = plain if texture == "hollow" else tuple(channel * 5 // 8 for channel in plain)
    light = tuple((channel + 6 * 255) // 7 for channel in plain)
    keep: list[int] = []
    added: list[int] = []
    for ink_samples, dark_samples, light_samples in _coverage(shape, texture, width):
        keep.append(FULL - ink_samples - dark_samples - light_samples)
        # Adding half of 16 rounds the division to the nearest integer.
        added.extend(
            ink_samples * i + dark_samples * d + light_samples * l + FULL // 2
            for i, d, l in zip(plain, dark, light, strict=True)
        )
    return Sprite(width, tuple(keep), tuple(added))


@cache
def background(number: int, size: int) -> bytes:
    """Return an empty image: a background that becomes slightly darker toward the bottom."""
    rows = []
    for row in range(size):
        shade = 14 * row // size
        rows.append(bytes(channel - shade for channel in PAPER[number]) * size)
    return b"".join(rows)


def rasterize(scene: Scene, size: int = 64) -> bytes:
    """Render a scene: size × size pixels of red, green and blue bytes, row by row.

    Raises ValueError when `size` is below 16, where a small object would be 3 pixels wide.
    """
    check_size(size)
    pixels = bytearray(background(scene.background, size))
    for scene_object in scene.objects:
        left, top = corner(scene_object, size)
        width, keep, ink = sprite(
            scene_object.shape, scene_object.color, scene_object.texture, size_in_pixels(scene_object.size, size)
        )
        for row in range(width):
            start = 3 * ((top + row) * size + left)
            for column in range(width):
                background_weight = keep[row * width + column]
                for channel in range(3):
                    at = start + 3 * column + channel
                    pixels[at] = (background_weight * pixels[at] + ink[3 * (row * width + column) + channel]) >> 4
    return bytes(pixels)


def check_size(size: int) -> None:
    """Raise ValueError for an image size that is too small."""
    if size < SMALLEST:
        raise ValueError(f"image of {size} pixels: expected at least {SMALLEST}, 32 to see everything well")
