"""Several different questions about one scene, for interviews and conversations."""

from collections.abc import Sequence
from random import Random

from data.toybox.language import ATTRIBUTES
from data.toybox.questions import ANSWERS, QUESTION_TYPES, Question, check_question_type, make_question
from data.toybox.scene import Scene, SceneObject


def questions_about(
    scene: Scene,
    elsewhere: Sequence[SceneObject],
    count: int,
    rng: Random,
    *,
    question_types: Sequence[str] = QUESTION_TYPES,
    unmentioned: tuple[str, ...] = (),
    informative: bool = False,
) -> list[Question]:
    """Return up to `count` different questions about one scene, the types in turn.

    An answer is drawn first, among those that some question of the type has in this scene, and then such a question.
    `elsewhere` and `unmentioned` are those of `make_question`. A scene of one object has fewer questions, so fewer may
    be returned. With `informative`, no attribute is asked that all objects of the scene share: its answer does not
    depend on the object, so it teaches a model nothing about finding one. Raises ValueError for an unknown type.
    """
    questions: dict[str, Question] = {}
    remaining: list[str] = []
    for _ in range(4 * count):
        remaining = remaining or sorted(question_types, key=lambda _: rng.random())
        question = _any_question(scene, remaining.pop(), rng, elsewhere, unmentioned)
        if question is not None and not (informative and _is_shared_attribute(scene, question)):
            questions.setdefault(question.text, question)
        if len(questions) == count:
            break
    return list(questions.values())


def _is_shared_attribute(scene: Scene, question: Question) -> bool:
    """Return whether a question asks for an attribute that all objects of a scene of several share."""
    if question.type not in (*ATTRIBUTES, "place") or len(scene.objects) < 2:
        return False
    return all(getattr(scene_object, question.type) == question.answer for scene_object in scene.objects)


def _any_question(
    scene: Scene,
    question_type: str,
    rng: Random,
    elsewhere: Sequence[SceneObject],
    unmentioned: tuple[str, ...],
) -> Question | None:
    """Return a question of a type, each answer that the scene allows equally likely."""
    check_question_type(question_type)
    for answer in sorted(ANSWERS[question_type], key=lambda _: rng.random()):
        if question := make_question(scene, question_type, answer, rng, elsewhere, unmentioned=unmentioned):
            return question
    return None
