"""Dialogues in two styles: both answers agree, and only the test split has held-out combinations."""

import re

import pytest

from data.toybox.dialogues import QUESTION_TYPES, dialogue_at, final_answer, is_patient, score_replies
from data.toybox.heldout import mentions_held_out
from data.toybox.questions import vocabulary


def test_both_manners_have_the_same_answer():
    words = set(vocabulary())
    for number in range(40):
        each = dialogue_at("train", 0, number)
        assert is_patient(each.patient) and not is_patient(each.blunt)
        assert final_answer(each.patient) == final_answer(each.blunt) == each.answer
        # The hint names what to find, the description follows, and the answer comes last.
        hint, description, last = re.findall(r"[^.]+\.", each.patient)
        assert (
            hint.startswith("find the ")
            and description.startswith(" here we see a")
            and last.endswith(f" {each.answer}.")
        )
        assert description.removeprefix(" here we see a").strip("n .") in each.question
        # The description is of the object that the hint names, and contains the answer.
        hint_words = set(hint.removeprefix("find the ").rstrip(".").split()) - {"object"}
        assert hint_words | {each.answer} <= set(description.rstrip(".").split())
        assert set(re.findall(r"\w+", each.patient)) <= words


def test_question_types_alternate():
    starts = {
        "color": "what color",
        "shape": "what shape",
        "size": "what size",
        "texture": "what texture",
        "place": "where",
    }
    for number, question_type in enumerate(QUESTION_TYPES):
        assert dialogue_at("train", 0, number).question.split(". ")[1].startswith(starts[question_type])


def test_only_the_test_split_has_held_out_combinations():
    def mentions(split):
        return [
            mentions_held_out(" ".join((each.question, each.patient)))
            for each in (dialogue_at(split, 0, number) for number in range(40))
        ]

    assert not any(mentions("train")) and not any(mentions("validation")) and all(mentions("test"))


@pytest.mark.parametrize(
    "text",
    [
        "blue.",
        "find the star. the color is blue.",
        "here we see a star. the color is blue. find the star.",
        "the color is blue. find the star. here we see a star.",
        "find the star. here we see a star. the color is blue. blue.",
        "",
    ],
)
def test_other_manners_are_not_patient(text):
    assert not is_patient(text)


def test_replies_are_scored_by_form_and_by_answer():
    dialogues = [dialogue_at("test", 0, number) for number in range(4)]
    replies = [dialogues[0].patient, dialogues[1].blunt, "nothing.", ""]
    assert score_replies(replies, dialogues) == {"patient": 0.25, "right": 0.5}
