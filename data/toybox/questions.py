"""Questions about a scene with their answers: twelve types, balanced so that they cannot be answered without the image.

A blind baseline can learn the frequency of each answer and the words that come with it. Therefore the answer is drawn
first, each with equal probability, and then a question that has it. The words of a question do not reveal its answer:
a question about the nearest object's color names no color, the two sides of a comparison are exchangeable, and an
absent object is one that another scene contains.
(Only a guesser with the held-out list does better on the test split, where a triangle is often purple. The training
questions do not contain that information.)
"""

import re
from collections.abc import Sequence
from itertools import permutations
from random import Random
from typing import NamedTuple

from data.toybox.heldout import SPLITS, check_split, scene_at
from data.toybox.language import (
    ATTRIBUTES,
    NUMBERS,
    OPENINGS,
    VERBS,
    WHERE,
    Description,
    describe,
    phrase,
    refer,
    words,
)
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
    nearest,
    pick,
    same,
    stream,
)

TEMPLATES = {
    "color": "what color is the {scene_object}?",
    "shape": "what shape is the {scene_object}?",
    "size": "what size is the {scene_object}?",
    "texture": "what texture is the {scene_object}?",
    "place": "where is the {scene_object}?",
    "count": "how many {objects} are there?",
    "existence": "is there {scene_object}?",
    "relation": "is the {scene_object} {relation} the {other}?",
    "nearest": "what {attribute} is the object nearest to the {scene_object}?",
    "same": "are the {scene_object} and the {other} of the same {attribute}?",
    "larger": "is the {scene_object} larger than the {other}?",
    "more": "are there more {objects} than {others}?",
}
QUESTION_TYPES = tuple(TEMPLATES)
_YES_NO = ("yes", "no")
ANSWERS = {
    "color": COLORS,
    "shape": SHAPES,
    "size": SIZES,
    "texture": TEXTURES,
    "place": PLACES,
    "count": NUMBERS[:4],
    "existence": _YES_NO,
    "relation": _YES_NO,
    "nearest": COLORS + SHAPES,
    "same": _YES_NO,
    "larger": _YES_NO,
    "more": _YES_NO,
}


class Question(NamedTuple):
    """A question, its type (one of `QUESTION_TYPES`) and its one right answer (one of `ANSWERS[type]`)."""

    type: str
    text: str
    answer: str


def make_question(
    scene: Scene,
    question_type: str,
    answer: str,
    rng: Random,
    elsewhere: Sequence[SceneObject] = (),
    *,
    unmentioned: tuple[str, ...] = (),
) -> Question | None:
    """Return a question of a type that has this answer in this scene, or None when there is none.

    `elsewhere` holds objects of other scenes of the same split, for questions about absent objects. A scene of the
    training split and objects from its split give no held-out combination. The question's own words name no attribute
    in `unmentioned`.

    Raises ValueError for an unknown type, or an answer that the type never has.
    """
    check_question_type(question_type)
    if answer not in ANSWERS[question_type]:
        raise ValueError(
            f"a question of type {question_type!r} never has the answer {answer!r}: {', '.join(ANSWERS[question_type])}"
        )
    if question_type in ("color", "shape", "size", "texture", "place"):
        text = _ask_attribute(scene, question_type, answer, rng, unmentioned)
    elif question_type in ("count", "more"):
        text = _ask_numbers(scene, question_type, answer, rng)
    elif question_type == "existence":
        text = _ask_existence(scene, answer, rng, elsewhere, unmentioned)
    elif question_type == "nearest":
        text = _ask_nearest(scene, answer, rng, unmentioned)
    else:
        text = _ask_two(scene, question_type, answer, rng, unmentioned)
    return Question(question_type, text, answer) if text else None


def check_question_type(question_type: str) -> None:
    """Raise ValueError for an unknown question type."""
    if question_type not in QUESTION_TYPES:
        raise ValueError(f"no question type {question_type!r}: choose one of {', '.join(QUESTION_TYPES)}")


def question_at(
    split: str, seed: int, number: int, question_type: str | None = None, objects: tuple[int, int] = (2, 6)
) -> tuple[Scene, Question]:
    """Return question `number` of a split and seed, and its scene; of one type, or of all types with equal probability.

    All answers of a type are equally frequent. The scene is scene `number` where that has such a question,
    else a later one. Raises ValueError for an unknown split or type, or when no scene of
    so few objects has such a question.
    """
    check_split(split)
    if question_type is not None:
        check_question_type(question_type)
    # Each split and type has its own purpose; purposes below 16 belong to scenes.
    rng = stream(
        seed,
        number,
        16 * (1 + SPLITS.index(split))
        + (QUESTION_TYPES.index(question_type) if question_type else len(QUESTION_TYPES)),
    )
    question_type = question_type or pick(rng, QUESTION_TYPES)
    answer = pick(rng, ANSWERS[question_type])
    for attempt in range(1000):
        # A large offset, so that no two questions share their later scenes.
        scene = scene_at(split, seed, number + attempt * 2**40, objects)
        other = (
            scene_at(split, seed, number + attempt * 2**40 + 2**39, objects) if question_type == "existence" else scene
        )
        question = make_question(scene, question_type, answer, rng, other.objects)
        if question:
            return scene, question
    raise ValueError(
        f"no scene of {objects[0]} to {objects[1]} objects has a {question_type!r} question with the answer {answer!r}"
    )


def _ask_attribute(
    scene: Scene, question_type: str, answer: str, rng: Random, unmentioned: tuple[str, ...]
) -> str | None:
    objects = [scene_object for scene_object in scene.objects if getattr(scene_object, question_type) == answer]
    description = objects and refer(scene, pick(rng, objects), rng, excluded=(question_type, "place", *unmentioned))
    return TEMPLATES[question_type].format(scene_object=words(description)) if description else None


def _ask_numbers(scene: Scene, question_type: str, answer: str, rng: Random) -> str | None:
    """Count the objects of one color or shape, or compare two such numbers.

    Only colors and shapes, which are equally frequent: "how many small objects" would suggest "many".
    """
    attribute, values = pick(rng, (("color", COLORS), ("shape", SHAPES)))
    numbers = {
        value: sum(getattr(scene_object, attribute) == value for scene_object in scene.objects) for value in values
    }
    if question_type == "count":
        counted = [value for value in values if numbers[value] == ANSWERS["count"].index(answer)]
        return TEMPLATES[question_type].format(objects=_plural(attribute, pick(rng, counted))) if counted else None
    # Only values that occur: a comparison with zero objects would be too easy.
    present = [value for value in values if numbers[value]]
    pairs = [(a, b) for a, b in permutations(present, 2) if numbers[a] != numbers[b]]
    fitting = [(a, b) for a, b in pairs if (numbers[a] > numbers[b]) == (answer == "yes")]
    if not fitting:
        return None
    a, b = pick(rng, fitting)
    return TEMPLATES[question_type].format(objects=_plural(attribute, a), others=_plural(attribute, b))


def _plural(attribute: str, value: str) -> str:
    return words(Description(count=2, **{attribute: value}))


def _ask_existence(
    scene: Scene, answer: str, rng: Random, elsewhere: Sequence[SceneObject], unmentioned: tuple[str, ...]
) -> str | None:
    """Ask for an object of this scene, or for one of another scene that does not occur here."""
    attributes = pick(rng, [subset for subset in _SUBSETS if not set(subset) & set(unmentioned)])
    candidates = [
        describe(scene_object, attributes) for scene_object in (scene.objects if answer == "yes" else elsewhere)
    ]
    if answer == "no":
        candidates = [candidate for candidate in candidates if not any(map(candidate.fits, scene.objects))]
    return TEMPLATES["existence"].format(scene_object=phrase(pick(rng, candidates))) if candidates else None


_SUBSETS: tuple[tuple[str, ...], ...] = (
    ("color",),
    ("shape",),
    ("color", "shape"),
    ("color", "shape"),
    ("texture", "shape"),
    ("size", "color"),
)
_SUBSETS += (("size", "color", "shape"), ("texture", "color", "shape"), ATTRIBUTES)


def _ask_nearest(scene: Scene, answer: str, rng: Random, unmentioned: tuple[str, ...]) -> str | None:
    """Ask for a neighbor's color (or shape) without mentioning one: neighbors are often alike."""
    attribute = "color" if answer in COLORS else "shape"
    fitting = []
    for scene_object in scene.objects:
        neighbor = nearest(scene.objects, scene_object)
        if neighbor and getattr(neighbor, attribute) == answer:
            description = refer(scene, scene_object, rng, excluded=(attribute, "place", *unmentioned))
            if description:
                fitting.append(description)
    return TEMPLATES["nearest"].format(attribute=attribute, scene_object=words(pick(rng, fitting))) if fitting else None


def _ask_two(scene: Scene, question_type: str, answer: str, rng: Random, unmentioned: tuple[str, ...]) -> str | None:
    """Ask for the relation of two objects, whether they share an attribute, or which is larger."""
    relation = pick(rng, RELATIONS)
    attribute = pick(rng, [attribute for attribute in ATTRIBUTES if attribute not in unmentioned])
    detail = {"relation": relation, "same": attribute, "larger": "size"}[question_type]
    yes, fitting = answer == "yes", []
    for a, b in permutations(scene.objects, 2):
        if question_type == "relation":
            # Ambiguous pairs are excluded.
            fits = holds(a, detail, b) if yes else holds(b, detail, a)
        elif question_type == "same":
            fits = same(a, b, detail) == yes
        else:
            fits = a.size != b.size and (a.size == "large") == yes
        if fits:
            fitting.append((a, b))
    if not fitting:
        return None
    # Mentioning a place would reveal the relation.
    excluded = (detail, "place", *unmentioned)
    first, second = (refer(scene, scene_object, rng, excluded) for scene_object in pick(rng, fitting))
    if first is None or second is None:
        return None
    return TEMPLATES[question_type].format(
        scene_object=words(first), other=words(second), relation=detail, attribute=detail
    )


def vocabulary() -> tuple[str, ...]:
    """Return every word that captions, questions, answers and instructions use, sorted."""
    plurals = [words(Description(shape=shape, count=2)) for shape in (*SHAPES, None)]
    texts = [*SHAPES, *plurals, *COLORS, *SIZES, *TEXTURES, *WHERE.values(), *NUMBERS, "a an and object the"]
    texts += [*OPENINGS, *RELATIONS, *VERBS, *(answer for answers in ANSWERS.values() for answer in answers)]
    texts += [*ATTRIBUTES, *(re.sub(r"\{\w+\}", "", template) for template in TEMPLATES.values())]
    return tuple(sorted({word for text in texts for word in re.findall(r"\w+", text)}))
