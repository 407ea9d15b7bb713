"""What can be said of a scene: descriptions, captions at several levels of detail, and instructions.

Every sentence follows one small grammar and is read back by `parse`, so that what a trained model writes can be
checked against the scene it saw, exactly:

    caption   = [opening] phrase {", " phrase} [" and " phrase] | [opening] phrase relation phrase
    phrase    = number [size] [texture] [colour] noun [place]
    number    = "a" | "an" | "two" | … ;  noun = a shape or "thing", with "s" after a number above one
    place     = "at the top left" | "on the left" | "in the middle" | …
    relation  = "left of" | "right of" | "above" | "below"

The last colour before a noun is that noun's: a text speaks of a purple triangle only where it says "purple triangle".
"""

import re
from collections import Counter
from itertools import combinations
from random import Random
from typing import NamedTuple

from data.toybox.scene import (
    COLOURS,
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
LEVELS = ("shapes", "colours", "attributes", "places", "relation")
OPENINGS = ("", "a picture of ", "here we see ")
WHERE = {
    place: f"{'in the' if place == 'middle' else 'on the' if place in ('left', 'right') else 'at the'} {place}"
    for place in PLACES
}
VERBS = ("point to", "touch", "find", "click on")
ATTRIBUTES = ("size", "texture", "colour", "shape")


class Description(NamedTuple):
    """What a phrase says of one thing, or of `count` things alike; None is left unsaid."""

    size: str | None = None
    texture: str | None = None
    colour: str | None = None
    shape: str | None = None
    place: str | None = None
    count: int = 1

    def fits(self, scene_object: SceneObject) -> bool:
        """Whether all that is said is true of the thing."""
        return (
            self.size in (None, scene_object.size)
            and self.texture in (None, scene_object.texture)
            and self.colour in (None, scene_object.colour)
            and self.shape in (None, scene_object.shape)
            and (self.place is None or self.place == scene_object.place)
        )


class Caption(NamedTuple):
    """What a caption says: its phrases, and for a caption about two things how the first lies to the second."""

    phrases: tuple[Description, ...]
    relation: str | None = None


class Instruction(NamedTuple):
    """A request about one thing, and the number of that thing in the scene."""

    text: str
    target: int


def describe(scene_object: SceneObject, attributes: tuple[str, ...]) -> Description:
    """Return what is said of a thing when only these of size, texture, colour, shape and place are said."""
    return Description(**{attribute: getattr(scene_object, attribute) for attribute in attributes})


def words(description: Description) -> str:
    """Return the description without its number: "small red circle at the top left", "red things"."""
    noun = (description.shape or "thing") + ("es" if description.shape == "cross" else "s") * (description.count > 1)
    said = [description.size, description.texture, description.colour, noun, WHERE.get(description.place)]
    return " ".join(word for word in said if word)


def phrase(description: Description) -> str:
    """Return "a small red circle at the top left", "two red things"."""
    text = words(description)
    if description.count > 1:
        return f"{NUMBERS[description.count]} {text}"
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def join(phrases: list[str]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)


_SAID = {
    "shapes": ("shape",),
    "colours": ("colour", "shape"),
    "attributes": ("size", "texture", "colour", "shape"),
    "places": ("size", "texture", "colour", "shape", "place"),
}


def caption(scene: Scene, level: str = "attributes", rng: Random | None = None) -> str:
    """Return a caption of the scene at a level of detail.

    "shapes": "two circles and a star"; "colours": "a red circle, a blue circle and a red star";
    "attributes": with size and texture; "places": with places too. These name every thing, in reading order.
    "relation": "a small plain red circle left of a large dotted blue star", about two things that `rng` picks
    (a scene of one thing has none, and gets its "attributes"). With `rng`, the opening words vary too.

    Raises ValueError for another level, or for "relation" without `rng`.
    """
    if level not in LEVELS:
        raise ValueError(f"no caption level {level!r}: choose one of {', '.join(LEVELS)}")
    opening = pick(rng, OPENINGS) if rng else ""
    if level == "relation":
        if rng is None:
            raise ValueError("a caption about a relation picks two things: give it rng=random.Random(…)")
        related = [
            (a, name, b) for a in scene.objects for b in scene.objects for name in RELATIONS if holds(a, name, b)
        ]
        if related:
            a, name, b = pick(rng, related)
            return f"{opening}{phrase(describe(a, ATTRIBUTES))} {name} {phrase(describe(b, ATTRIBUTES))}"
        level = "attributes"
    alike = Counter(describe(scene_object, _SAID[level]) for scene_object in scene.objects)
    return opening + join([phrase(description._replace(count=count)) for description, count in alike.items()])


_PHRASE = re.compile(
    rf"(?P<number>an?|{'|'.join(NUMBERS[2:])})"
    rf"(?: (?P<size>{'|'.join(SIZES)}))?"
    rf"(?: (?P<texture>{'|'.join(TEXTURES)}))?"
    rf"(?: (?P<colour>{'|'.join(COLOURS)}))?"
    rf" (?P<shape>{'|'.join(SHAPES)}|thing)(?P<plural>e?s)?"
    # The longest place first: "at the top left" begins with "at the top".
    rf"(?: (?P<place>{'|'.join(sorted(WHERE.values(), key=len, reverse=True))}))?"
)
_PLACE_OF = {where: place for place, where in WHERE.items()}


def parse_phrase(text: str) -> Description:
    """Return what a phrase says. Raises ValueError when it is none of the grammar's."""
    found = _PHRASE.fullmatch(text)
    if found:
        said = found.groupdict()
        count = NUMBERS.index(said["number"]) if said["number"] in NUMBERS else 1
        shape = None if said["shape"] == "thing" else said["shape"]
        description = Description(
            said["size"], said["texture"], said["colour"], shape, _PLACE_OF.get(said["place"]), count
        )
        if phrase(description) == text:
            return description
    raise ValueError(f"{text!r} is no phrase such as 'a small striped red circle' or 'two blue stars'")


def parse(text: str) -> Caption:
    """Return what a caption says. Raises ValueError, naming the phrase, when it is not in the grammar."""
    for opening in OPENINGS[1:]:
        text = text.removeprefix(opening)
    for name in RELATIONS:
        left, found, right = text.partition(f" {name} ")
        if found:
            return Caption((parse_phrase(left), parse_phrase(right)), name)
    return Caption(tuple(parse_phrase(part) for part in re.split(r", | and ", text)))


def is_true(text: str, scene: Scene) -> bool:
    """Whether a caption (of any level, by whoever wrote it) holds for a scene.

    A caption without a relation lists the whole scene: each phrase must fit exactly as many things as it says,
    and each thing exactly one phrase. A text outside the grammar is not true.
    """
    try:
        said = parse(text)
    except ValueError:
        return False
    if said.relation:
        first, second = said.phrases
        pairs = ((a, b) for a in scene.objects for b in scene.objects)
        return any(first.fits(a) and second.fits(b) and holds(a, said.relation, b) for a, b in pairs)
    each_counts = all(sum(map(description.fits, scene.objects)) == description.count for description in said.phrases)
    each_named = all(
        sum(description.fits(scene_object) for description in said.phrases) == 1 for scene_object in scene.objects
    )
    return each_counts and each_named


def refer(scene: Scene, scene_object: SceneObject, rng: Random, unsaid: tuple[str, ...] = ()) -> Description | None:
    """Return a description that fits this thing and no other, or None when there is none.

    Half of the time it is as short as can be, half of the time it says one attribute more.
    The attributes in `unsaid` (of size, texture, colour, shape and place) stay unsaid: a question about the colour must not tell it.
    Places are named only when nothing else helps.
    """
    sayable = [attribute for attribute in ("shape", "colour", "size", "texture") if attribute not in unsaid]
    generous = rng.random() < 0.5
    for length in range(1, len(sayable) + 1):
        descriptions = [describe(scene_object, attributes) for attributes in combinations(sayable, length)]
        fitting = [description for description in descriptions if sum(map(description.fits, scene.objects)) == 1]
        if fitting and generous and length < len(sayable):
            generous = False  # whatever says more than a fitting description fits too
        elif fitting:
            return pick(rng, fitting)
    if "place" not in unsaid:
        return describe(scene_object, (*sayable, "place"))
    return None


def instruction(scene: Scene, rng: Random) -> Instruction:
    """Return a request about one thing of the scene: "point to the small red circle", "touch the star left of the moon".

    Exactly one thing of the scene fits.
    """
    target = int(rng.random() * len(scene.objects))
    scene_object, verb = scene.objects[target], pick(rng, VERBS)
    landmark = pick(rng, scene.objects)
    related = [relation for relation in RELATIONS if holds(scene_object, relation, landmark)]
    if related:
        # The relation helps to tell things apart, so less is said of the thing itself. Another thing of its shape
        # may not lie on that side of the landmark, not even a little.
        relation, said = pick(rng, related), describe(scene_object, ("shape",))
        if sum(said.fits(other) and offset(other, relation, landmark) > 0 for other in scene.objects) == 1:
            return Instruction(f"{verb} the {words(said)} {relation} the {words(refer(scene, landmark, rng))}", target)
    return Instruction(f"{verb} the {words(refer(scene, scene_object, rng))}", target)
