"""Interviews: a caption of a scene, then many questions with their answers, one per line.

    a small plain red moon at the top and a large dotted blue star on the left.
    what is there? a red moon and a blue star
    where is the moon? top
    is the star larger than the moon? yes

A language model that is trained on interviews learns to answer questions about a scene from its description. Later
lessons put an image in the place of the caption.
"""

from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from data.toybox.heldout import scene_at
from data.toybox.language import ATTRIBUTES, caption
from data.toybox.question_sets import questions_about
from data.toybox.questions import QUESTION_TYPES, Question
from data.toybox.scene import Scene, SceneObject
from data.toybox.unanswerable import OTHER_SCENES, unanswerable_question

DESCRIBE_PROMPT = "what is there?"
LEVELS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "colors": (("color", "shape", "existence", "same", "count", "more"), ("size", "texture")),
    "attributes": (("color", "shape", "size", "texture", "existence", "same", "count", "more", "larger"), ()),
    "places": (QUESTION_TYPES, ()),
}
"""For each caption level the question types that such a caption answers, and the attributes that it leaves out."""
QUESTIONS_ON_ONE_OBJECT = 4
"""Greatest number of questions about a scene of one object."""
CANDIDATES = 20
"""Number of scenes among which one with different objects is searched."""
CANDIDATE_OFFSET = 2**33
"""Offset of the numbers of these scenes."""


@dataclass(frozen=True)
class InterviewSetting:
    """Describe interviews.

    objects         least and greatest number of objects per scene
    levels          caption levels with the relative frequency of each
    question_types  only these types; None: all that the caption answers
    references      attributes by which questions may refer to objects
    questions       least and greatest number of questions
    distinct        fraction of scenes whose objects all differ in color and in shape. Their questions are informative
                    (`question_sets.questions_about`), so that each teaches a model to find the object in the caption
    described       fraction of interviews with a second, short caption
    unanswerable    fraction of interviews with a question that no image answers

    Raises ValueError for a level without interviews.
    """

    objects: tuple[int, int] = (1, 3)
    levels: tuple[tuple[str, float], ...] = (("places", 1.0),)
    question_types: tuple[str, ...] | None = None
    references: tuple[str, ...] = ATTRIBUTES
    questions: tuple[int, int] = (6, 12)
    distinct: float = 0.0
    described: float = 0.3
    unanswerable: float = 0.3

    def __post_init__(self) -> None:
        for level, _ in self.levels:
            if level not in LEVELS:
                raise ValueError(f"no interviews at caption level {level!r}: choose one of {', '.join(LEVELS)}")


class InterviewScene(NamedTuple):
    """Hold a scene, the level of its caption, and questions about it."""

    scene: Scene
    level: str
    questions: list[Question]


def interview(split: str, seed: int, number: int, rng: Random, setting: InterviewSetting | None = None) -> str:
    """Return interview `number` of a split; `rng` draws its questions. Raises ValueError for an unknown split."""
    setting = setting or InterviewSetting()
    scene, level, questions = interview_scene(split, seed, number, rng, setting)
    lines = [f"{question.text} {question.answer}" for question in questions]
    if level != "colors" and rng.random() < setting.described:
        lines.insert(0, f"{DESCRIBE_PROMPT} {caption(scene, 'colors')}")
    return "\n".join([f"{caption(scene, level)}.", *lines]) + "\n"


def interview_scene(split: str, seed: int, number: int, rng: Random, setting: InterviewSetting) -> InterviewScene:
    """Return the scene and the questions of interview `number`, for models that read an image instead of a caption.

    Raises ValueError for an unknown split.
    """
    level = _draw_level(setting, rng)
    question_types, unmentioned = LEVELS[level]
    if setting.question_types is not None:
        question_types = tuple(name for name in setting.question_types if name in question_types)
    unmentioned += tuple(name for name in ATTRIBUTES if name not in (*setting.references, *unmentioned))
    is_distinct = rng.random() < setting.distinct
    scene = _scene(split, seed, number, setting, is_distinct)
    elsewhere = scene_at(split, seed, number + OTHER_SCENES, setting.objects).objects
    least, most = setting.questions
    count = least + int(rng.random() * (most - least + 1))
    questions = questions_about(
        scene,
        elsewhere,
        min(count, QUESTIONS_ON_ONE_OBJECT) if len(scene.objects) == 1 else count,
        rng,
        question_types=question_types,
        unmentioned=unmentioned,
        informative=is_distinct,
    )
    if rng.random() < setting.unanswerable:
        question = unanswerable_question(scene, rng, elsewhere, split=split, unmentioned=unmentioned)
        questions.insert(int(rng.random() * (len(questions) + 1)), question)
    return InterviewScene(scene, level, questions)


def _draw_level(setting: InterviewSetting, rng: Random) -> str:
    threshold = rng.random() * sum(weight for _, weight in setting.levels)
    for level, weight in setting.levels:
        threshold -= weight
        if threshold < 0:
            return level
    return setting.levels[-1][0]


def _scene(split: str, seed: int, number: int, setting: InterviewSetting, is_distinct: bool) -> Scene:
    """Return scene `number`, or the first of the candidates after it whose objects differ."""
    scene = scene_at(split, seed, number, setting.objects)
    for candidate in range(1, CANDIDATES if is_distinct else 1):
        if objects_differ(scene.objects):
            break
        scene = scene_at(split, seed, number + candidate * CANDIDATE_OFFSET, setting.objects)
    return scene


def objects_differ(objects: tuple[SceneObject, ...]) -> bool:
    """Return whether no two objects share a color or a shape."""
    colors, shapes = ({getattr(each, name) for each in objects} for name in ("color", "shape"))
    return len(colors) == len(shapes) == len(objects)
