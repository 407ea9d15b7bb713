"""Questions that no image of the toy world answers, so that a model can learn to say so.

Half of them ask for an attribute of an object that the scene does not hold; the others ask for something that images
do not show, such as a price. Some of these topics are held out: test questions are about topics that no training text
mentions.
"""

from collections.abc import Sequence
from random import Random

from data.toybox.heldout import check_split, scene_at
from data.toybox.language import ATTRIBUTES, Description, describe, words
from data.toybox.questions import TEMPLATES, Question
from data.toybox.scene import Scene, SceneObject, pick, stream

UNANSWERABLE = "unanswerable"
"""The type of these questions; it is not among `QUESTION_TYPES`."""
CANNOT_TELL = "i can't tell"
"""Their one right answer."""
SEEN_TOPICS = (
    "what does the {scene_object} cost?",
    "how heavy is the {scene_object}?",
    "who made the {scene_object}?",
    "what is behind the {scene_object}?",
    "what is inside the {scene_object}?",
    "does the {scene_object} make a sound?",
    "is the {scene_object} warm?",
    "how does the {scene_object} smell?",
    "will the {scene_object} move?",
    "what day is it?",
    "who are you?",
    "what is the weather like?",
)
HELD_OUT_TOPICS = (
    "how old is the {scene_object}?",
    "who owns the {scene_object}?",
    "is the {scene_object} hard or soft?",
    "what time is it?",
)
OTHER_SCENES = 2**39
"""Offset of the number of the scene whose objects serve as absent ones."""
PURPOSE = 244
"""Number of the random numbers of `unanswerable_at`."""
_DESCRIBED_BY = (("shape",), ("color",), ("color", "shape"), ("size", "shape"), ("texture", "shape"), ("size", "color"))


def unanswerable_question(
    scene: Scene,
    rng: Random,
    elsewhere: Sequence[SceneObject] = (),
    *,
    split: str = "train",
    unmentioned: tuple[str, ...] = (),
) -> Question:
    """Return a question about the scene that its image does not answer.

    elsewhere    objects of another scene of the same split, for questions about absent objects
    split        "test" draws from `HELD_OUT_TOPICS`, the other splits from `SEEN_TOPICS`
    unmentioned  attributes that the question's own words do not name

    Raises ValueError for an unknown split.
    """
    check_split(split)
    if rng.random() < 0.5:
        absent = _absent_object(scene, rng, elsewhere, unmentioned)
        if absent is not None:
            attribute, description = absent
            return Question(UNANSWERABLE, TEMPLATES[attribute].format(scene_object=words(description)), CANNOT_TELL)
    topics = HELD_OUT_TOPICS if split == "test" else SEEN_TOPICS
    description = describe(pick(rng, scene.objects), pick(rng, _descriptions(unmentioned)))
    return Question(UNANSWERABLE, pick(rng, topics).format(scene_object=words(description)), CANNOT_TELL)


def unanswerable_at(split: str, seed: int, number: int, objects: tuple[int, int]) -> tuple[Scene, Question]:
    """Return unanswerable question `number` of a split, and its scene. Raises ValueError for an unknown split."""
    scene, other = (scene_at(split, seed, index, objects) for index in (number, number + OTHER_SCENES))
    return scene, unanswerable_question(scene, stream(seed, number, PURPOSE), other.objects, split=split)


def _descriptions(unmentioned: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [attributes for attributes in _DESCRIBED_BY if not set(attributes) & set(unmentioned)]


def _absent_object(
    scene: Scene, rng: Random, elsewhere: Sequence[SceneObject], unmentioned: tuple[str, ...]
) -> tuple[str, Description] | None:
    """Return a description of an object of another scene that fits none here, and an attribute to ask for."""
    candidates = [
        (attribute, description)
        for scene_object in elsewhere
        for attributes in _descriptions(unmentioned)
        for attribute in (*ATTRIBUTES, "place")
        if attribute not in attributes
        and not any(map((description := describe(scene_object, attributes)).fits, scene.objects))
    ]
    return pick(rng, candidates) if candidates else None
