"""Questions about the toy world, each answered twice: by a patient teacher, and by somebody who blurts it out.

    a small plain red circle and a large dotted blue star. what colour is the star?
    patient   find the star. here we see a large dotted blue star. the colour is blue.
    blunt     blue.

The patient answer gives a hint first (what to find), then shows where to look, and says the answer last. Every word of
both is one that lesson 0's decoder has read.
"""

import re
from dataclasses import dataclass

from data.toybox.language import ATTRIBUTES, caption, describe, parse_phrase, phrase
from data.toybox.questions import question_at
from data.toybox.scene import Scene, SceneObject

KINDS = ("colour", "shape", "size", "texture")
"""Questions about one thing."""
PATIENT = re.compile(r"find the [a-z ]+\. here we see [a-z ]+\. the (?P<kind>[a-z]+) is (?P<answer>[a-z]+)\.")


@dataclass(frozen=True)
class Dialogue:
    """A question, the two answers to it, and what is right."""

    question: str
    patient: str
    blunt: str
    answer: str


def dialogue_at(split: str, seed: int, number: int, objects: tuple[int, int] = (1, 2)) -> Dialogue:
    """Dialogue `number` of a split; in "test" each scene has a combination of colour and shape that is never trained on."""
    scene, question = question_at(split, seed, number, KINDS[number % len(KINDS)], objects)
    asked_for = re.fullmatch(r"what \w+ is the (.+)\?", question.text)[1]
    scene_object = _object(scene, asked_for)
    shown = phrase(describe(scene_object, ATTRIBUTES))
    return Dialogue(
        f"{caption(scene, 'attributes')}. {question.text}",
        f"find the {asked_for}. here we see {shown}. the {question.type} is {question.answer}.",
        f"{question.answer}.",
        question.answer,
    )


def _object(scene: Scene, words: str) -> SceneObject:
    """The one thing of the scene that the words fit."""
    said = parse_phrase(f"{'an' if words[0] in 'aeiou' else 'a'} {words}")
    (scene_object,) = (scene_object for scene_object in scene.objects if said.fits(scene_object))
    return scene_object


def is_patient(text: str) -> bool:
    """Whether a reply has the teacher's form: hint, then look, then answer. (Whether it is right is another question.)"""
    return PATIENT.fullmatch(text) is not None


def final_answer(text: str) -> str:
    """What a reply says in the end, in either form."""
    found = PATIENT.fullmatch(text)
    return found["answer"] if found else text.removesuffix(".")
