"""Questions about the toy world in text, each with two answers: one in a patient teacher's manner, one blunt.

    a small plain red circle and a large dotted blue star. what color is the star?
    patient   find the star. here we see a large dotted blue star. the color is blue.
    blunt     blue.

The patient answer first names what to find, then describes it, and gives the answer last. Every word of both is in the
vocabulary of lesson 0's decoder.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from data.toybox.language import ATTRIBUTES, caption, describe, parse_phrase, phrase
from data.toybox.questions import question_at
from data.toybox.scene import Scene, SceneObject

QUESTION_TYPES = ("color", "shape", "size", "texture")
"""Types of questions about one object."""
PATIENT = re.compile(r"find the [a-z ]+\. here we see [a-z ]+\. the (?P<attribute>[a-z]+) is (?P<answer>[a-z]+)\.")
PATIENT_EVERY = 3
"""One in so many answers to imitate is patient; the others are blunt."""


@dataclass(frozen=True)
class Dialogue:
    """Hold a question with its scene, both answers to it, and the correct word."""

    question: str
    patient: str
    blunt: str
    answer: str

    def answer_to_imitate(self, number: int) -> str:
        """Return the answer that supervised fine-tuning imitates in dialogue `number`."""
        return self.patient if number % PATIENT_EVERY == 0 else self.blunt


def dialogue_at(split: str, seed: int, number: int, objects: tuple[int, int] = (1, 2)) -> Dialogue:
    """Return dialogue `number` of a split; in "test" each scene has a held-out combination of color and shape."""
    scene, question = question_at(split, seed, number, QUESTION_TYPES[number % len(QUESTION_TYPES)], objects)
    match = re.fullmatch(r"what \w+ is the (.+)\?", question.text)
    assert match, question.text
    description = match[1]
    full_description = phrase(describe(_object_described(scene, description), ATTRIBUTES))
    return Dialogue(
        f"{caption(scene, 'attributes')}. {question.text}",
        f"find the {description}. here we see {full_description}. the {question.type} is {question.answer}.",
        f"{question.answer}.",
        question.answer,
    )


def _object_described(scene: Scene, description: str) -> SceneObject:
    """Return the one object of the scene that fits the description."""
    parsed = parse_phrase(f"{'an' if description[0] in 'aeiou' else 'a'} {description}")
    (fitting,) = (each for each in scene.objects if parsed.fits(each))
    return fitting


def is_patient(text: str) -> bool:
    """Return whether a reply has the patient form: hint, then description, then answer, correct or not."""
    return PATIENT.fullmatch(text) is not None


def final_answer(text: str) -> str:
    """Return the answer at the end of a reply of either form."""
    match = PATIENT.fullmatch(text)
    return match["answer"] if match else text.removesuffix(".")


def score_replies(replies: Sequence[str], dialogues: Sequence[Dialogue]) -> dict[str, float]:
    """Return the fraction of replies in the patient form, and the fraction with the correct answer in either form."""
    correct = [final_answer(reply) == each.answer for reply, each in zip(replies, dialogues, strict=True)]
    return {"patient": sum(map(is_patient, replies)) / len(replies), "right": sum(correct) / len(replies)}
