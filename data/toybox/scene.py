"""The toy world: coloured things in places, each scene drawn from a seed.

A `Scene` is what every modality of the course renders: a picture shows it, a caption says it, a question
asks about it. The world is a square of `WORLD` × `WORLD` units, x to the right and y down. Things never touch,
so that nothing is hidden, and each sits well inside one ninth of the square, so that its place has one name.

Scene number `number` of seed `seed` is a pure function of the two: equal on every machine and Python version
(only `random.Random.random` of an integer seed is used, which Python promises to keep).
"""

from collections.abc import Collection, Sequence
from random import Random
from typing import NamedTuple

WORLD = 128
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "star", "heart", "moon")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
SIZES = ("small", "large")
TEXTURES = ("plain", "striped", "dotted", "hollow")
PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
RELATIONS = ("left of", "right of", "above", "below")
BACKGROUNDS = 12
MAX_OBJECTS = 6

# Width of a thing in units: 7 and 11 pixels in a picture of 32 × 32.
WIDTH = {"small": 28, "large": 44}
# Free units between the boxes of two things: one pixel in a picture of 32 × 32.
GAP = 4
# Two things count as left and right (above and below) of each other only when their centers differ by this much.
CLEARLY = 16
# Where the center of a thing may lie along one axis, in the first, second and last third of the world:
# 3 units or more from the border between two thirds, and the whole thing inside the world.
_FIRST = {size: (width // 2 + 1, 46, 88) for size, width in WIDTH.items()}
_LAST = {size: (40, 82, 127 - width // 2) for size, width in WIDTH.items()}

Pair = tuple[str, str]


class SceneObject(NamedTuple):
    """One thing: how it looks, and its center in world units."""

    shape: str
    colour: str
    size: str
    texture: str
    x: int
    y: int

    @property
    def place(self) -> str:
        """Which ninth of the world the thing lies in: one of `PLACES`."""
        return PLACES[3 * (3 * self.y // WORLD) + 3 * self.x // WORLD]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in world units; right and bottom are outside the thing."""
        half = WIDTH[self.size] // 2
        return self.x - half, self.y - half, self.x + half, self.y + half


class Scene(NamedTuple):
    """Things in reading order of their places, before one of `BACKGROUNDS` backgrounds."""

    objects: tuple[SceneObject, ...]
    background: int


def stream(seed: int, number: int, purpose: int = 0) -> Random:
    """Return the random numbers that belong to item `number` of `seed`; another `purpose` gives other numbers.

    Raises ValueError for a negative number: Python would drop the sign and repeat the positive one.
    """
    if seed < 0 or not 0 <= number < 2**64 or not 0 <= purpose < 256:
        raise ValueError(
            f"stream(seed={seed}, number={number}, purpose={purpose}): expected seed ≥ 0, 0 ≤ number < 2**64 and "
            "0 ≤ purpose < 256"
        )
    return Random((seed << 72) | (number << 8) | purpose)


def pick(rng: Random, options: Sequence):
    """Return one of the options. (`Random.choice` may change with Python's version, this does not.)"""
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

    `things` is the least and the greatest number of things, each count as likely as the other. No thing has a
    (colour, shape) in `forbidden`; where `required` is given, at least one thing has a (colour, shape) out of it.

    Raises ValueError when `things` is not within 1 … `MOST_THINGS`, or for a negative seed or number.
    """
    least, most = objects
    if not 1 <= least <= most <= MAX_OBJECTS:
        raise ValueError(f"things={objects}: expected (least, most) with 1 ≤ least ≤ most ≤ {MAX_OBJECTS}")
    rng = stream(seed, number, purpose)
    count = least + int(rng.random() * (most - least + 1))
    kinds = _kinds(rng.random, count, forbidden, required)
    placed = _layout(rng.random, count)
    return Scene(
        tuple(
            SceneObject(shape, colour, size, TEXTURES[int(rng.random() * 4)], x, y)
            for (colour, shape), (_, size, x, y) in zip(kinds, placed, strict=True)
        ),
        int(rng.random() * BACKGROUNDS),
    )


def _kinds(random, count: int, forbidden: Collection[Pair], required: Sequence[Pair]) -> list[Pair]:
    """Draw a (colour, shape) for each thing.

    A thing often takes its colour or its shape from an earlier one, so that there is something to count and
    to tell apart.
    """
    kinds = []
    for index in range(count):
        if index == 0 and required:
            kinds.append(required[int(random() * len(required))])
            continue
        while True:
            colour, shape = COLOURS[int(random() * 8)], SHAPES[int(random() * 8)]
            echo = int(random() * 5) if index else 4
            if echo < 2:
                colour = kinds[int(random() * index)][0]
            elif echo < 4:
                shape = kinds[int(random() * index)][1]
            if (colour, shape) not in forbidden:
                break
        kinds.append((colour, shape))
    # The thing that was required comes first so far; any thing may come first in the picture.
    for index in range(count - 1, 0, -1):
        other = int(random() * (index + 1))
        kinds[index], kinds[other] = kinds[other], kinds[index]
    return kinds


def _layout(random, count: int) -> list[tuple[int, str, int, int]]:
    """Draw (cell, size, x, y) for each thing, in reading order, no two nearer than `GAP`."""
    while True:
        cells = list(range(9))
        placed = []
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
    """Return how many units the center of a lies left of (right of, above, below) that of b; negative on the other side."""
    if relation in ("left of", "right of"):
        return b.x - a.x if relation == "left of" else a.x - b.x
    return b.y - a.y if relation == "above" else a.y - b.y


def holds(a: SceneObject, relation: str, b: SceneObject) -> bool:
    """Whether a clearly lies left of (right of, above, below) b."""
    return offset(a, relation, b) >= CLEARLY


def distance(a: SceneObject, b: SceneObject) -> int:
    """Return the squared distance between the centers of a and b, in units²."""
    return (a.x - b.x) ** 2 + (a.y - b.y) ** 2


def nearest(objects: Sequence[SceneObject], scene_object: SceneObject) -> SceneObject | None:
    """Return the thing nearest to `thing`, or None when there is no other or two are about equally near.

    Clearly nearest means that the next one is a quarter farther away, which an eye can see.
    """
    others = sorted(
        (distance(scene_object, other), index) for index, other in enumerate(objects) if other is not scene_object
    )
    if not others or (len(others) > 1 and 16 * others[1][0] < 25 * others[0][0]):
        return None
    return objects[others[0][1]]


def same(a: SceneObject, b: SceneObject, attribute: str) -> bool:
    """Whether a and b have the same "shape", "colour", "size", "texture" or "place"."""
    return getattr(a, attribute) == getattr(b, attribute)
