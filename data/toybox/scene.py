"""The toy world: colored objects in places, each scene drawn from a seed.

A `Scene` is rendered by every modality of the course: as an image, a caption, or questions with answers. The world is a
square of `WORLD` × `WORLD` units, x to the right and y down. Objects never touch or overlap. Each lies well inside one
ninth of the square, so that its place has one name.

Scene number `number` of seed `seed` is a pure function of the two: equal on every machine and Python version
(it uses only `random.Random.random` with an integer seed, which Python keeps stable across versions).
"""

from collections.abc import Collection, Sequence
from random import Random
from typing import NamedTuple

WORLD = 128
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "star", "heart", "moon")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
SIZES = ("small", "large")
TEXTURES = ("plain", "striped", "dotted", "hollow")
PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
RELATIONS = ("left of", "right of", "above", "below")
BACKGROUNDS = 12
MAX_OBJECTS = 6

# Width of an object in units: 7 and 11 pixels in a 32 × 32 image.
WIDTH = {"small": 28, "large": 44}
# Free units between the bounding boxes of two objects: one pixel in a 32 × 32 image.
GAP = 4
# Two objects are left and right of (above and below) each other only when their centers differ by at least this much.
CLEARLY = 16
# Range of an object's center along one axis, in the first, second and last third of the world:
# at least 3 units from the border between two thirds, and the whole object inside the world.
_FIRST = {size: (width // 2 + 1, 46, 88) for size, width in WIDTH.items()}
_LAST = {size: (40, 82, 127 - width // 2) for size, width in WIDTH.items()}

Pair = tuple[str, str]


class SceneObject(NamedTuple):
    """One object: its appearance, and its center in world units."""

    shape: str
    color: str
    size: str
    texture: str
    x: int
    y: int

    @property
    def place(self) -> str:
        """Return the ninth of the world that holds the object: one of `PLACES`."""
        return PLACES[3 * (3 * self.y // WORLD) + 3 * self.x // WORLD]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom in world units; right and bottom are exclusive."""
        half = WIDTH[self.size] // 2
        return self.x - half, self.y - half, self.x + half, self.y + half


class Scene(NamedTuple):
    """Objects in reading order of their places, on one of `BACKGROUNDS` backgrounds."""

    objects: tuple[SceneObject, ...]
    background: int


def stream(seed: int, number: int, purpose: int = 0) -> Random:
    """Return the random number generator of item `number` of `seed`; each `purpose` has its own.

    purpose  below 64: scenes, questions and the judge; 64–99: pages; 100–183: episodes and documents; 184–199: clips;
             from 200 on: lessons, apps, conversations, unanswerable questions

    Raises ValueError for a negative number, because Python's seeding ignores the sign.
    """
    if seed < 0 or not 0 <= number < 2**64 or not 0 <= purpose < 256:
        raise ValueError(
            f"stream(seed={seed}, number={number}, purpose={purpose}): expected seed ≥ 0, 0 ≤ number < 2**64 and "
            "0 ≤ purpose < 256"
        )
    return Random((seed << 72) | (number << 8) | purpose)


def pick(rng: Random, options: Sequence):
    """Return one of the options; unlike `Random.choice`, the result does not depend on the Python version."""
    return options[int(rng.random() * len(options))]


def make_scene(
    seed: int,
    number: int,
    *,
    objects: tuple[int, int] = (1, 5),
    forbidden: Collection[Pair] = (),
    required: Sequence[Pair] = (),
    purpose: int = 0,
) -> Scene:
    """Return scene `number` of `seed`.

    objects    least and greatest number of objects; all counts are equally likely
    forbidden  (color, shape) pairs that no object has
    required   (color, shape) pairs, one of which at least one object has

    Raises ValueError when `objects` is not within 1 … `MAX_OBJECTS`, or for a negative seed or number.
    """
    least, most = objects
    if not 1 <= least <= most <= MAX_OBJECTS:
        raise ValueError(f"objects={objects}: expected (least, most) with 1 ≤ least ≤ most ≤ {MAX_OBJECTS}")
    rng = stream(seed, number, purpose)
    count = least + int(rng.random() * (most - least + 1))
    pairs = _color_shape_pairs(rng.random, count, forbidden, required)
    placed = _layout(rng.random, count)
    return Scene(
        tuple(
            SceneObject(shape, color, size, TEXTURES[int(rng.random() * 4)], x, y)
            for (color, shape), (_, size, x, y) in zip(pairs, placed, strict=True)
        ),
        int(rng.random() * BACKGROUNDS),
    )


def _color_shape_pairs(random, count: int, forbidden: Collection[Pair], required: Sequence[Pair]) -> list[Pair]:
    """Draw a (color, shape) pair for each object.

    An object often copies its color or shape from an earlier one, so that scenes have objects to count and to compare.
    """
    pairs = []
    for index in range(count):
        if index == 0 and required:
            pairs.append(required[int(random() * len(required))])
            continue
        while True:
            color, shape = COLORS[int(random() * 8)], SHAPES[int(random() * 8)]
            echo = int(random() * 5) if index else 4
            if echo < 2:
                color = pairs[int(random() * index)][0]
            elif echo < 4:
                shape = pairs[int(random() * index)][1]
            if (color, shape) not in forbidden:
                break
        pairs.append((color, shape))
    # The required object is still first; shuffle, because any object may come first in the image.
    for index in range(count - 1, 0, -1):
        other = int(random() * (index + 1))
        pairs[index], pairs[other] = pairs[other], pairs[index]
    return pairs


def _layout(random, count: int) -> list[tuple[int, str, int, int]]:
    """Draw (cell, size, x, y) for each object, in reading order, with at least `GAP` units between two objects."""
    while True:
        cells = list(range(9))
        placed: list[tuple[int, str, int, int]] = []
        for _ in range(count):
            cell = cells.pop(int(random() * len(cells)))
            row, column = divmod(cell, 3)
            for _ in range(6):
                size = SIZES[int(random() * 2)]
                first, last = _FIRST[size], _LAST[size]
                x = first[column] + int(random() * (last[column] - first[column] + 1))
                y = first[row] + int(random() * (last[row] - first[row] + 1))
                if _is_free(size, x, y, placed):
                    placed.append((cell, size, x, y))
                    break
            else:
                break
        if len(placed) == count:
            placed.sort()
            return placed


def _is_free(size: str, x: int, y: int, placed: list[tuple[int, str, int, int]]) -> bool:
    width = WIDTH[size]
    for _, other_size, other_x, other_y in placed:
        apart = (width + WIDTH[other_size]) // 2 + GAP
        if -apart < x - other_x < apart and -apart < y - other_y < apart:
            return False
    return True


def offset(a: SceneObject, relation: str, b: SceneObject) -> int:
    """Return by how many units the center of a lies left of (right of, above, below) that of b; may be negative."""
    if relation in ("left of", "right of"):
        return b.x - a.x if relation == "left of" else a.x - b.x
    return b.y - a.y if relation == "above" else a.y - b.y


def holds(a: SceneObject, relation: str, b: SceneObject) -> bool:
    """Return whether a lies left of (right of, above, below) b by at least `CLEARLY` units."""
    return offset(a, relation, b) >= CLEARLY


def distance(a: SceneObject, b: SceneObject) -> int:
    """Return the squared distance between the centers of a and b, in units²."""
    return (a.x - b.x) ** 2 + (a.y - b.y) ** 2


def nearest(objects: Sequence[SceneObject], scene_object: SceneObject) -> SceneObject | None:
    """Return the object nearest to `scene_object`, or None when there is none or two are about equally near.

    The nearest object is unambiguous when the next one is at least a quarter farther away.
    """
    others = sorted(
        (distance(scene_object, other), index) for index, other in enumerate(objects) if other is not scene_object
    )
    if not others or (len(others) > 1 and 16 * others[1][0] < 25 * others[0][0]):
        return None
    return objects[others[0][1]]


def same(a: SceneObject, b: SceneObject, attribute: str) -> bool:
    """Return whether a and b have the same "shape", "color", "size", "texture" or "place"."""
    return getattr(a, attribute) == getattr(b, attribute)
