"""Conversations about scenes: descriptions, and questions with answers whose types alternate."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from data.toybox.interviews import DESCRIBE_PROMPT
from data.toybox.language import caption
from data.toybox.question_sets import questions_about
from data.toybox.questions import QUESTION_TYPES
from data.toybox.scene import Scene
from data.toybox.unanswerable import unanswerable_question

FULL_CAPTION, SHORT_CAPTION = "places", "colors"
PURPOSE = 220  # of conversations' random numbers in `stream`
MINIMUM_OBJECTS = {"nearest": 2, "relation": 2, "same": 2, "larger": 2, "count": 3, "more": 3}
"""Objects that a question type needs, where it needs more than one, so that each of its answers can be right."""
Turns = list[tuple[str, str]]


@dataclass(frozen=True)
class SceneSetting:
    """Describe conversations about scenes.

    objects         least and greatest number of objects per scene
    question_types  the types that are asked
    unanswerable    fraction of conversations with a question that no image answers

    Raises ValueError for types that need more objects than the scenes have.
    """

    objects: tuple[int, int]
    question_types: tuple[str, ...]
    unanswerable: float = 0.0

    def __post_init__(self) -> None:
        impossible = [name for name in self.question_types if MINIMUM_OBJECTS.get(name, 1) > self.objects[1]]
        if impossible:
            raise ValueError(
                f"question types {', '.join(impossible)} need more objects than {self.objects[1]}, the most per scene"
            )


def scene_setting(objects: Sequence[int], *, unanswerable: float = 0.0) -> SceneSetting:
    """Return scenes with (least, greatest) `objects`, and all question types that these allow."""
    least, greatest = objects
    types = tuple(name for name in QUESTION_TYPES if MINIMUM_OBJECTS.get(name, 1) <= greatest)
    return SceneSetting((least, greatest), types, unanswerable)


def description_turns(scene: Scene, number: int) -> Turns:
    """Return a full caption for even numbers and a short one for odd numbers."""
    if number % 2:
        return [(DESCRIBE_PROMPT, caption(scene, SHORT_CAPTION))]
    return [("", f"{caption(scene, FULL_CAPTION)}.")]


def question_turns(scene: Scene, other: Scene, count: int, setting: SceneSetting, rng: Random) -> Turns:
    """Return up to `count` different questions with their answers, all types in turn.

    `other` is a scene of the same split, for questions about absent objects. Few scenes of one object have more than
    six different questions. Attributes that all objects share are not asked (`questions_about`). The questions are for
    training: an unanswerable one has a topic of the training split.
    """
    questions = questions_about(
        scene, other.objects, count, rng, question_types=setting.question_types, informative=True
    )
    if setting.unanswerable and rng.random() < setting.unanswerable:
        question = unanswerable_question(scene, rng, other.objects)
        questions.insert(int(rng.random() * (len(questions) + 1)), question)
    return [(question.text, question.answer) for question in questions]
