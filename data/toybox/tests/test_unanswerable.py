"""Questions that no image answers: their topics are held out, and absent objects are really absent."""

import re
from random import Random

import pytest

from data.toybox.heldout import mentions_held_out, scene_at
from data.toybox.language import parse_phrase
from data.toybox.question_sets import questions_about
from data.toybox.questions import QUESTION_TYPES
from data.toybox.unanswerable import (
    CANNOT_TELL,
    HELD_OUT_TOPICS,
    SEEN_TOPICS,
    UNANSWERABLE,
    unanswerable_question,
)


def questions(split, count=300):
    for number in range(count):
        scene, other = scene_at(split, 3, number, (1, 3)), scene_at(split, 3, number + 2**39, (1, 3))
        yield scene, unanswerable_question(scene, Random(number), other.objects, split=split)


def has_topic(text, topics):
    return any(re.fullmatch(re.escape(topic).replace(r"\{scene_object\}", "[a-z ]+"), text) for topic in topics)


def test_topics_are_held_out():
    for split, topics, others in (
        ("train", SEEN_TOPICS, HELD_OUT_TOPICS),
        ("validation", SEEN_TOPICS, HELD_OUT_TOPICS),
        ("test", HELD_OUT_TOPICS, SEEN_TOPICS),
    ):
        texts = [question.text for _, question in questions(split)]
        assert 0.4 < sum(has_topic(text, topics) for text in texts) / len(texts) < 0.7
        assert not any(has_topic(text, others) for text in texts)


def test_an_absent_object_fits_no_object_of_the_scene():
    absent = 0
    for scene, question in questions("train"):
        assert question.type == UNANSWERABLE and question.answer == CANNOT_TELL
        match = re.fullmatch(r"(?:what (?:color|shape|size|texture)|where) is the ([a-z ]+)\?", question.text)
        if match:
            absent += 1
            description = parse_phrase(f"{'an' if match[1][0] in 'aeiou' else 'a'} {match[1]}")
            assert not any(map(description.fits, scene.objects))
    assert absent > 80


def test_training_questions_mention_no_held_out_combination():
    assert not any(mentions_held_out(question.text) for _, question in questions("train"))


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="no split 'exam'"):
        unanswerable_question(scene_at("train", 0, 0), Random(0), split="exam")


def test_questions_about_a_scene_differ_and_take_types_in_turn():
    scene, other = scene_at("train", 0, 5, (3, 3)), scene_at("train", 0, 6, (3, 3))
    several = questions_about(scene, other.objects, 12, Random(0))
    assert len(several) == 12 == len({question.text for question in several})
    assert len({question.type for question in several}) >= 10
    only = questions_about(scene, other.objects, 3, Random(0), question_types=["color"])
    assert {question.type for question in only} == {"color"}


def test_a_scene_of_one_object_has_fewer_questions():
    scene = scene_at("train", 0, 1, (1, 1))
    several = questions_about(scene, (), 40, Random(0), question_types=QUESTION_TYPES[:5])
    assert 5 <= len(several) < 40
