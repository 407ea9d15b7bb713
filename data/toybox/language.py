"""The language of scenes: descriptions, captions at several levels of detail, and instructions.

Every sentence follows one small grammar and can be read back by `parse`. A generated caption can therefore be checked
exactly against its scene:

    caption   = [opening] phrase {", " phrase} [" and " phrase] | [opening] phrase relation phrase
    phrase    = number [size] [texture] [color] noun [place]
    number    = "a" | "an" | "two" | … ;  noun = a shape or "object", with "s" after a number above one
    place     = "at the top left" | "on the left" | "in the middle" | …
    relation  = "left of" | "right of" | "above" | "below"

The last color before a noun belongs to that noun: a text mentions a purple triangle only as "purple triangle".
"""

import re
from collections import Counter
from itertools import combinations
from random import Random
from typing import NamedTuple

from data.toybox.scene import (
    COLORS,
    PLACES,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    SceneObject,
    holds,
    offset,
    pick,
)

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
LEVELS = ("shapes", "colors", "attributes", "places", "relation")
OPENINGS = ("", "an image of ", "here we see ")
WHERE = {
    place: f"{'in the' if place == 'middle' else 'on the' if place in ('left', 'right') else 'at the'} {place}"
    for place in PLACES
}
VERBS = ("point to", "touch", "find", "click on")
ATTRIBUTES = ("size", "texture", "color", "shape")


class Description(NamedTuple):
    """The attributes in a phrase about one object, or about `count` equal objects; None means not mentioned."""

    size: str | None = None
    texture: str | None = None
    color: str | None = None
    shape: str | None = None
    place: str | None = None
    count: int = 1  # type: ignore[assignment]  # hides tuple.count, which nothing calls

    def fits(self, scene_object: SceneObject) -> bool:
        """Return whether the object has all mentioned attributes."""
        return (
            self.size in (None, scene_object.size)
            and self.texture in (None, scene_object.texture)
            and self.color in (None, scene_object.color)
            and self.shape in (None, scene_object.shape)
            and (self.place is None or self.place == scene_object.place)
        )


class Caption(NamedTuple):
    """A parsed caption: its phrases, and for a caption about two objects their relation."""

    phrases: tuple[Description, ...]
    relation: str | None = None


class Instruction(NamedTuple):
    """An instruction about one object, and the index of that object in the scene."""

    text: str
    target: int


def describe(scene_object: SceneObject, attributes: tuple[str, ...]) -> Description:
    """Return the description of an object by some of size, texture, color, shape and place."""
    return Description(**{attribute: getattr(scene_object, attribute) for attribute in attributes})


def words(description: Description) -> str:
    """Return a description's words without its number: "small red circle at the top left", "red objects"."""
    noun = (description.shape or "object") + ("es" if description.shape == "cross" else "s") * (description.count > 1)
    parts = [description.size, description.texture, description.color, noun, WHERE.get(description.place or "")]
    return " ".join(word for word in parts if word)


def phrase(description: Description) -> str:
    """Return a description with its number: "a small red circle at the top left", "two red objects"."""
    text = words(description)
    if description.count > 1:
        return f"{NUMBERS[description.count]} {text}"
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def join(phrases: list[str]) -> str:
    """Join phrases: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)


_ATTRIBUTES_OF_LEVEL = {
    "shapes": ("shape",),
    "colors": ("color", "shape"),
    "attributes": ("size", "texture", "color", "shape"),
    "places": ("size", "texture", "color", "shape", "place"),
}


def caption(scene: Scene, level: str = "attributes", rng: Random | None = None) -> str:
    """Return a caption of the scene at a level of detail.

    "shapes": "two circles and a star"; "colors": "a red circle, a blue circle and a red star";
    "attributes": with size and texture; "places": with places too. These name every object, in reading order.
    "relation": "a small plain red circle left of a large dotted blue star", about two objects that `rng` picks
    (a scene of one object gets "attributes" instead). With `rng`, the opening words vary too.

    Raises ValueError for another level, or for "relation" without `rng`.
    """
    if level not in LEVELS:
        raise ValueError(f"no caption level {level!r}: choose one of {', '.join(LEVELS)}")
    opening = pick(rng, OPENINGS) if rng else ""
    if level == "relation":
        if rng is None:
            raise ValueError("a caption about a relation draws two objects: pass rng=random.Random(…)")
        related = [
            (a, name, b) for a in scene.objects for b in scene.objects for name in RELATIONS if holds(a, name, b)
        ]
        if related:
            a, name, b = pick(rng, related)
            return f"{opening}{phrase(describe(a, ATTRIBUTES))} {name} {phrase(describe(b, ATTRIBUTES))}"
        level = "attributes"
    alike = Counter(describe(scene_object, _ATTRIBUTES_OF_LEVEL[level]) for scene_object in scene.objects)
    return opening + join([phrase(description._replace(count=count)) for description, count in alike.items()])


_PHRASE = re.compile(
    rf"(?P<number>an?|{'|'.join(NUMBERS[2:])})"
    rf"(?: (?P<size>{'|'.join(SIZES)}))?"
    rf"(?: (?P<texture>{'|'.join(TEXTURES)}))?"
    rf"(?: (?P<color>{'|'.join(COLORS)}))?"
    rf" (?P<shape>{'|'.join(SHAPES)}|object)(?P<plural>e?s)?"
    # The longest place first: "at the top left" begins with "at the top".
    rf"(?: (?P<place>{'|'.join(sorted(WHERE.values(), key=len, reverse=True))}))?"
)
_PLACE_OF = {where: place for place, where in WHERE.items()}


def parse_phrase(text: str) -> Description:
    """Parse a phrase. Raises ValueError when it is not in the grammar."""
    match = _PHRASE.fullmatch(text)
    if match:
        groups = match.groupdict()
        count = NUMBERS.index(groups["number"]) if groups["number"] in NUMBERS else 1
        shape = None if groups["shape"] == "object" else groups["shape"]
        description = Description(
            groups["size"], groups["texture"], groups["color"], shape, _PLACE_OF.get(groups["place"]), count
        )
        if phrase(description) == text:
            return description
    raise ValueError(f"{text!r} is no phrase such as 'a small striped red circle' or 'two blue stars'")


def parse(text: str) -> Caption:
    """Parse a caption. Raises ValueError that names the phrase when it is not in the grammar."""
    for opening in OPENINGS[1:]:
        text = text.removeprefix(opening)
    for name in RELATIONS:
        left, separator, right = text.partition(f" {name} ")
        if separator:
            return Caption((parse_phrase(left), parse_phrase(right)), name)
    return Caption(tuple(parse_phrase(part) for part in re.split(r", | and ", text)))


def is_true(text: str, scene: Scene) -> bool:
    """Return whether a caption of any level, for example a generated one, is true of a scene.

    A caption without a relation lists the whole scene: each phrase must fit exactly as many objects as it states,
    and each object exactly one phrase. A text outside the grammar is not true.
    """
    try:
        parsed = parse(text)
    except ValueError:
        return False
    if parsed.relation:
        first, second = parsed.phrases
        pairs = ((a, b) for a in scene.objects for b in scene.objects)
        return any(first.fits(a) and second.fits(b) and holds(a, parsed.relation, b) for a, b in pairs)
    each_counts = all(sum(map(description.fits, scene.objects)) == description.count for description in parsed.phrases)
    each_named = all(
        sum(description.fits(scene_object) for description in parsed.phrases) == 1 for scene_object in scene.objects
    )
    return each_counts and each_named


def refer(scene: Scene, scene_object: SceneObject, rng: Random, excluded: tuple[str, ...] = ()) -> Description | None:
    """Return a description that fits this object and no other, or None when there is none.

    With probability one half it is as short as possible, otherwise it mentions one attribute more. Attributes in
    `excluded` are not mentioned: a question about the color must not reveal it. The place is mentioned only when the
    other attributes do not suffice.
    """
    allowed = [attribute for attribute in ("shape", "color", "size", "texture") if attribute not in excluded]
    generous = rng.random() < 0.5
    for length in range(1, len(allowed) + 1):
        descriptions = [describe(scene_object, attributes) for attributes in combinations(allowed, length)]
        fitting = [description for description in descriptions if sum(map(description.fits, scene.objects)) == 1]
        if fitting and generous and length < len(allowed):
            generous = False  # a longer description fits too
        elif fitting:
            return pick(rng, fitting)
    if "place" not in excluded:
        return describe(scene_object, (*allowed, "place"))
    return None


def _identify(scene: Scene, scene_object: SceneObject, rng: Random) -> Description:
    """Return a description that fits this object and no other; with its place there always is one."""
    description = refer(scene, scene_object, rng)
    assert description is not None
    return description


def instruction(scene: Scene, rng: Random) -> Instruction:
    """Return an instruction about one object of the scene.

    Examples: "point to the small red circle", "touch the star left of the moon". Exactly one object of the scene fits.
    """
    target = int(rng.random() * len(scene.objects))
    scene_object, verb = scene.objects[target], pick(rng, VERBS)
    landmark = pick(rng, scene.objects)
    related = [relation for relation in RELATIONS if holds(scene_object, relation, landmark)]
    if related:
        # The relation helps to identify the object, so its description is short. No other object of its shape may
        # lie on that side of the landmark, not even slightly.
        relation, short = pick(rng, related), describe(scene_object, ("shape",))
        if sum(short.fits(other) and offset(other, relation, landmark) > 0 for other in scene.objects) == 1:
            return Instruction(
                f"{verb} the {words(short)} {relation} the {words(_identify(scene, landmark, rng))}", target
            )
    return Instruction(f"{verb} the {words(_identify(scene, scene_object, rng))}", target)
