"""The color–shape combinations that no training set of the course contains.

Every color and every shape occurs in training with seven partners; the eighth combination is held out. A model that
scores well on the test scenes has composed attributes that it learned separately; it cannot have memorized them.
The list holds for images and for text, in every lesson. Each checkpoint's provenance names `VERSION`:
a change to the list or to the world needs a new version.
"""

import re

from data.toybox.scene import COLORS, SHAPES, SIZES, TEXTURES, Pair, Scene, make_scene

VERSION = "toybox-2"

# Each color once and each shape once.
HELD_OUT: frozenset[Pair] = frozenset(
    {
        ("purple", "triangle"),
        ("red", "moon"),
        ("orange", "star"),
        ("yellow", "cross"),
        ("green", "heart"),
        ("blue", "diamond"),
        ("pink", "square"),
        ("black", "circle"),
    }
)
ALL_PAIRS: tuple[Pair, ...] = tuple((color, shape) for color in COLORS for shape in SHAPES)
SEEN_PAIRS: tuple[Pair, ...] = tuple(pair for pair in ALL_PAIRS if pair not in HELD_OUT)
_REQUIRED = tuple(sorted(HELD_OUT))

# "train" and "validation" scenes hold only seen combinations; each "test" scene holds at least one held-out one.
SPLITS = ("train", "validation", "test")
SPLIT_CONTENTS = {"validation": "new scenes of seen combinations", "test": "scenes with an unseen combination"}
"""What the splits for choosing settings and for measuring hold, as pages state it."""
TEST_SEED = 1_000
"""Base seed of test scenes: apart from the training seeds, whatever the seed of a run."""


def scene_at(split: str, seed: int, number: int, objects: tuple[int, int] = (1, 5)) -> Scene:
    """Return scene `number` of a split: "train", "validation" (new scenes of seen combinations) or "test".

    `objects` is the least and the greatest number of objects. The three splits of one seed share no random numbers.
    Raises ValueError for another split, or what `make_scene` refuses.
    """
    check_split(split)
    if split == "test":
        return make_scene(seed, number, objects=objects, required=_REQUIRED, purpose=2)
    return make_scene(seed, number, objects=objects, forbidden=HELD_OUT, purpose=SPLITS.index(split))


def sample_scenes(split: str, seed: int, count: int, objects: tuple[int, int]) -> list[Scene]:
    """Return the first `count` scenes of a split, each with `objects` (least, greatest) objects."""
    return [scene_at(split, seed, number, objects) for number in range(count)]


def check_split(split: str) -> None:
    """Raise ValueError when there is no such split."""
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: choose one of {', '.join(SPLITS)}")


def is_held_out(scene: Scene) -> bool:
    """Return whether any object of the scene has a held-out combination."""
    return any((scene_object.color, scene_object.shape) in HELD_OUT for scene_object in scene.objects)


# A color belongs to a shape when it stands before it ("purple striped triangle", "purple, large triangle"),
# or is predicated of it ("the triangle is purple", "triangles that are small and purple").
_ADJECTIVE = "|".join(COLORS + SIZES + TEXTURES)
_COLOR, _SHAPE = "|".join(COLORS), "|".join(SHAPES)
_BEFORE = re.compile(rf"\b((?:(?:{_ADJECTIVE})(?:,? and |, ?| ))+)({_SHAPE})(?:e?s)?\b")
_AFTER = re.compile(
    rf"\b({_SHAPE})(?:e?s)?(?:,? (?:(?:that|which) )?(?:is|are|was|were|in))?"
    rf" ((?:(?:not|all|both|{_ADJECTIVE})(?:,? and |,? or |, ?| |\b))+)"
)


def mentions_held_out(text: str) -> bool:
    """Return whether a text mentions a held-out combination, such as "two small purple triangles".

    Negations and questions count too ("no purple triangle"), because a model learns from the words.
    """
    text = " ".join(text.lower().split())
    bound = _BEFORE.findall(text) + [(adjectives, shape) for shape, adjectives in _AFTER.findall(text)]
    return any((color, shape) in HELD_OUT for adjectives, shape in bound for color in re.findall(_COLOR, adjectives))
