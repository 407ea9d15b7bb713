"""Questions about a scene, with the answer: twelve kinds, drawn so that nobody answers well without looking.

A blind guesser knows how often each answer comes, and which words come with it. So the answer is drawn first, each
as often as the other, and then a question that has it; and no question's words give its answer away: the thing
nearest to a thing is asked for its colour without a colour being named, the two sides of a comparison are
exchangeable, and what is *not* there is something that is there in another scene.
(Only one who knows the held-out list guesses better in the test split: there a triangle is often the purple one.
No training question tells.)
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
    COLOURS,
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
    "colour": "what colour is the {scene_object}?",
    "shape": "what shape is the {scene_object}?",
    "size": "what size is the {scene_object}?",
    "texture": "what texture is the {scene_object}?",
    "place": "where is the {scene_object}?",
    "count": "how many {objects} are there?",
    "existence": "is there {scene_object}?",
    "relation": "is the {scene_object} {relation} the {other}?",
    "nearest": "what {attribute} is the thing nearest to the {scene_object}?",
    "same": "are the {scene_object} and the {other} of the same {attribute}?",
    "larger": "is the {scene_object} larger than the {other}?",
    "more": "are there more {objects} than {others}?",
}
QUESTION_TYPES = tuple(TEMPLATES)
_YES_NO = ("yes", "no")
ANSWERS = {
    "colour": COLOURS,
    "shape": SHAPES,
    "size": SIZES,
    "texture": TEXTURES,
    "place": PLACES,
    "count": NUMBERS[:4],
    "existence": _YES_NO,
    "relation": _YES_NO,
    "nearest": COLOURS + SHAPES,
    "same": _YES_NO,
    "larger": _YES_NO,
    "more": _YES_NO,
}


class Question(NamedTuple):
    """A question, its question_type (one of `QUESTION_TYPES`) and its one right answer (one of `ANSWERS[question_type]`)."""

    type: str
    text: str
    answer: str


def make_question(
    scene: Scene, question_type: str, answer: str, rng: Random, elsewhere: Sequence[SceneObject] = ()
) -> Question | None:
    """Return a question of a question_type that has this answer in this scene, or None when there is none.

    `elsewhere` are things of other scenes of the same split: what is asked for when the answer is that it is
    not there. A scene of the training split and things from its split give no held-out combination.

    Raises ValueError for an unknown question_type, or an answer the question_type never has.
    """
    check_question_type(question_type)
    if answer not in ANSWERS[question_type]:
        raise ValueError(
            f"a question of question_type {question_type!r} is never answered {answer!r}: {', '.join(ANSWERS[question_type])}"
        )
    if question_type in ("colour", "shape", "size", "texture", "place"):
        text = _ask_attribute(scene, question_type, answer, rng)
    elif question_type in ("count", "more"):
        text = _ask_numbers(scene, question_type, answer, rng)
    elif question_type == "existence":
        text = _ask_existence(scene, answer, rng, elsewhere)
    elif question_type == "nearest":
        text = _ask_nearest(scene, answer, rng)
    else:
        text = _ask_two(scene, question_type, answer, rng)
    return Question(question_type, text, answer) if text else None


def check_question_type(question_type: str) -> None:
    """Raise ValueError when there is no such question_type of question."""
    if question_type not in QUESTION_TYPES:
        raise ValueError(f"no question question_type {question_type!r}: choose one of {', '.join(QUESTION_TYPES)}")


def question_at(
    split: str, seed: int, number: int, question_type: str | None = None, objects: tuple[int, int] = (2, 6)
) -> tuple[Scene, Question]:
    """Return question `number` of a split and seed, and its scene; of one question_type, or of all kinds in equal parts.

    Each answer of a question_type is as frequent as the others. The scene is scene `number` where that has such a question,
    else a later one. Raises ValueError for an unknown split or question_type, or when no scene of so few things has an answer.
    """
    check_split(split)
    if question_type is not None:
        check_question_type(question_type)
    # Other numbers for each split and question_type; below 16 are the scenes' own.
    rng = stream(
        seed,
        number,
        16 * (1 + SPLITS.index(split))
        + (QUESTION_TYPES.index(question_type) if question_type else len(QUESTION_TYPES)),
    )
    question_type = question_type or pick(rng, QUESTION_TYPES)
    answer = pick(rng, ANSWERS[question_type])
    for attempt in range(1000):
        # Far from the numbers that anybody counts to, so that no two questions share their later scenes.
        scene = scene_at(split, seed, number + attempt * 2**40, objects)
        other = (
            scene_at(split, seed, number + attempt * 2**40 + 2**39, objects) if question_type == "existence" else scene
        )
        question = make_question(scene, question_type, answer, rng, other.objects)
        if question:
            return scene, question
    raise ValueError(
        f"no scene of {objects[0]} to {objects[1]} things has a {question_type!r} question answered {answer!r}"
    )


def _ask_attribute(scene: Scene, question_type: str, answer: str, rng: Random) -> str | None:
    objects = [scene_object for scene_object in scene.objects if getattr(scene_object, question_type) == answer]
    said = objects and refer(scene, pick(rng, objects), rng, unsaid=(question_type, "place"))
    return TEMPLATES[question_type].format(scene_object=words(said)) if said else None


def _ask_numbers(scene: Scene, question_type: str, answer: str, rng: Random) -> str | None:
    """Count the things of one colour or shape, or compare two such numbers.

    Only colours and shapes, which are all equally frequent: "how many small things" would give away "many".
    """
    attribute, values = pick(rng, (("colour", COLOURS), ("shape", SHAPES)))
    numbers = {
        value: sum(getattr(scene_object, attribute) == value for scene_object in scene.objects) for value in values
    }
    if question_type == "count":
        fitting = [value for value in values if numbers[value] == ANSWERS["count"].index(answer)]
        return fitting and TEMPLATES[question_type].format(objects=_plural(attribute, pick(rng, fitting)))
    # Only what is there, so that "more than nothing" does not make it easy.
    present = [value for value in values if numbers[value]]
    pairs = [(a, b) for a, b in permutations(present, 2) if numbers[a] != numbers[b]]
    fitting = [(a, b) for a, b in pairs if (numbers[a] > numbers[b]) == (answer == "yes")]
    if not fitting:
        return None
    a, b = pick(rng, fitting)
    return TEMPLATES[question_type].format(objects=_plural(attribute, a), others=_plural(attribute, b))


def _plural(attribute: str, value: str) -> str:
    return words(Description(count=2, **{attribute: value}))


def _ask_existence(scene: Scene, answer: str, rng: Random, elsewhere: Sequence[SceneObject]) -> str | None:
    """Ask for a thing of this scene, or for one of another scene that has no like here."""
    attributes = pick(rng, _SUBSETS)
    candidates = [
        describe(scene_object, attributes) for scene_object in (scene.objects if answer == "yes" else elsewhere)
    ]
    if answer == "no":
        candidates = [said for said in candidates if not any(map(said.fits, scene.objects))]
    return TEMPLATES["existence"].format(scene_object=phrase(pick(rng, candidates))) if candidates else None


_SUBSETS = (("colour",), ("shape",), ("colour", "shape"), ("colour", "shape"), ("texture", "shape"), ("size", "colour"))
_SUBSETS += (("size", "colour", "shape"), ("texture", "colour", "shape"), ATTRIBUTES)


def _ask_nearest(scene: Scene, answer: str, rng: Random) -> str | None:
    """Ask for the colour (or shape) of a neighbor, with no colour (or shape) said: neighbors are often alike."""
    attribute = "colour" if answer in COLOURS else "shape"
    fitting = []
    for scene_object in scene.objects:
        neighbor = nearest(scene.objects, scene_object)
        if neighbor and getattr(neighbor, attribute) == answer:
            said = refer(scene, scene_object, rng, unsaid=(attribute, "place"))
            if said:
                fitting.append(said)
    return TEMPLATES["nearest"].format(attribute=attribute, scene_object=words(pick(rng, fitting))) if fitting else None


def _ask_two(scene: Scene, question_type: str, answer: str, rng: Random) -> str | None:
    """Ask how two things lie to each other, whether they share an attribute, or which is larger."""
    detail = {"relation": pick(rng, RELATIONS), "same": pick(rng, ATTRIBUTES), "larger": "size"}[question_type]
    yes, fitting = answer == "yes", []
    for a, b in permutations(scene.objects, 2):
        if question_type == "relation":
            # What is neither clearly so nor clearly the other way round is not asked.
            fits = holds(a, detail, b) if yes else holds(b, detail, a)
        elif question_type == "same":
            fits = same(a, b, detail) == yes
        else:
            fits = a.size != b.size and (a.size == "large") == yes
        if fits:
            fitting.append((a, b))
    if not fitting:
        return None
    # A place said aloud would answer how two things lie to each other.
    unsaid = (detail, "place")
    a, b = (refer(scene, scene_object, rng, unsaid) for scene_object in pick(rng, fitting))
    if a is None or b is None:
        return None
    return TEMPLATES[question_type].format(scene_object=words(a), other=words(b), relation=detail, attribute=detail)


def vocabulary() -> tuple[str, ...]:
    """Return every word that captions, questions, answers and instructions use, sorted."""
    plurals = [words(Description(shape=shape, count=2)) for shape in (*SHAPES, None)]
    texts = [*SHAPES, *plurals, *COLOURS, *SIZES, *TEXTURES, *WHERE.values(), *NUMBERS, "a an and thing the"]
    texts += [*OPENINGS, *RELATIONS, *VERBS, *(answer for answers in ANSWERS.values() for answer in answers)]
    texts += [*ATTRIBUTES, *(re.sub(r"\{\w+\}", "", template) for template in TEMPLATES.values())]
    return tuple(sorted({word for text in texts for word in re.findall(r"\w+", text)}))
