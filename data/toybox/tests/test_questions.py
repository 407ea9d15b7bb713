"""Questions: every answer is recomputed from the question's text, and blind baselines stay near chance."""

import re
from collections import Counter, defaultdict
from itertools import pairwise
from math import log

import pytest

from data.toybox.heldout import SPLITS, scene_at
from data.toybox.language import Description
from data.toybox.questions import ANSWERS, QUESTION_TYPES, Question, make_question, question_at
from data.toybox.scene import COLORS, PLACES, SHAPES, SIZES, TEXTURES, make_scene, stream

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six")


def fitting(text: str, scene) -> list:
    """Return the objects that "small red circle", "circles", "red objects" speak of, word by word."""
    attributes = {}
    for word in text.split():
        noun = word.removesuffix("es") if word == "crosses" else word
        for attribute, values in (("shape", SHAPES), ("color", COLORS), ("size", SIZES), ("texture", TEXTURES)):
            for value in values:
                if noun in (value, value + "s"):
                    attributes[attribute] = value
    return [
        scene_object
        for scene_object in scene.objects
        if all(getattr(scene_object, a) == v for a, v in attributes.items())
    ]


def the(text: str, scene):
    (scene_object,) = fitting(text, scene)
    return scene_object


def answer(scene, text: str) -> str:
    """Answer a question by another road than the one that made it."""
    if match := re.fullmatch(r"what (color|shape) is the object nearest to the (.*)\?", text):
        scene_object = the(match[2], scene)
        others = [other for other in scene.objects if other != scene_object]
        near = min(others, key=lambda other: (other.x - scene_object.x) ** 2 + (other.y - scene_object.y) ** 2)
        return getattr(near, match[1])
    if match := re.fullmatch(r"what (color|shape|size|texture) is the (.*)\?", text):
        return getattr(the(match[2], scene), match[1])
    if match := re.fullmatch(r"where is the (.*)\?", text):
        scene_object = the(match[1], scene)
        row = "top" if scene_object.y < 128 / 3 else "bottom" if scene_object.y > 256 / 3 else ""
        column = "left" if scene_object.x < 128 / 3 else "right" if scene_object.x > 256 / 3 else ""
        return f"{row} {column}".strip() or "middle"
    if match := re.fullmatch(r"how many (.*) are there\?", text):
        return NUMBER_WORDS[len(fitting(match[1], scene))]
    if match := re.fullmatch(r"is there an? (.*)\?", text):
        return "yes" if fitting(match[1], scene) else "no"
    if match := re.fullmatch(r"is the (.*) (left of|right of|above|below) the (.*)\?", text):
        a, b = the(match[1], scene), the(match[3], scene)
        dx, dy = b.x - a.x, b.y - a.y
        lead = {"left of": dx, "right of": -dx, "above": dy, "below": -dy}[match[2]]
        assert abs(lead) >= 16, "too near to call"
        return "yes" if lead > 0 else "no"
    if match := re.fullmatch(r"are the (.*) and the (.*) of the same (\w+)\?", text):
        return "yes" if getattr(the(match[1], scene), match[3]) == getattr(the(match[2], scene), match[3]) else "no"
    if match := re.fullmatch(r"is the (.*) larger than the (.*)\?", text):
        a, b = the(match[1], scene).size, the(match[2], scene).size
        assert a != b
        return "yes" if a == "large" else "no"
    if match := re.fullmatch(r"are there more (.*) than (.*)\?", text):
        a, b = len(fitting(match[1], scene)), len(fitting(match[2], scene))
        assert a != b
        return "yes" if a > b else "no"
    raise AssertionError(f"a question that no blind baseline understands: {text}")


@pytest.mark.parametrize("kind", QUESTION_TYPES)
def test_every_answer_is_right(kind):
    for split in SPLITS:
        for number in range(80):
            scene, question = question_at(split, 0, number, kind)
            assert question.type == kind and question.answer in ANSWERS[kind]
            assert answer(scene, question.text) == question.answer, (question, scene)


def bag(text: str) -> set[str]:
    """What a blind guesser goes by: the words and the pairs of words of a question."""
    words = text.rstrip("?").split()
    return {*words, *pairwise(words)}


def blind(train: list[Question], test: list[Question]) -> float:
    """Return the accuracy of naive Bayes, which sees the question and not the scene."""
    answers, words = Counter(question.answer for question in train), defaultdict(Counter)
    for question in train:
        words[question.answer].update(bag(question.text))
    training_words = {word for counts in words.values() for word in counts}

    def score(text: str, answer: str) -> float:
        total = answers[answer]
        return log(total) + sum(log((words[answer][word] + 0.5) / (total + 1)) for word in bag(text) & training_words)

    return sum(max(answers, key=lambda answer: score(q.text, answer)) == q.answer for q in test) / len(test)


# The most that a blind guesser may score. "color" and "shape" never have the held-out partner of what they name;
# "nearest" tells by its words whether a color or a shape is asked for.
CHANCE = {kind: 1 / len(ANSWERS[kind]) for kind in QUESTION_TYPES} | {"nearest": 1 / 8}


@pytest.mark.parametrize("kind", QUESTION_TYPES)
def test_the_blind_baseline_is_at_chance(kind):
    questions = [question_at("train", 1, number, kind)[1] for number in range(1500)]
    accuracy = blind(questions[:1000], questions[1000:])
    # Three standard deviations of 500 guesses, and three points.
    margin = 3 * (CHANCE[kind] * (1 - CHANCE[kind]) / 500) ** 0.5 + 0.03
    assert accuracy < CHANCE[kind] + margin, (kind, accuracy)


def test_the_blind_baseline_finds_a_bias():
    """The check above can fail: where an answer comes from the words, naive Bayes finds it."""
    biased = [Question("existence", f"is there a {shape}?", "yes" if shape < "m" else "no") for shape in SHAPES * 20]
    assert blind(biased[:80], biased[80:]) == 1.0


def test_each_answer_of_a_question_type_is_equally_frequent():
    for kind in ("size", "count", "place", "relation"):
        counts = Counter(question_at("train", 2, number, kind)[1].answer for number in range(900))
        assert set(counts) == set(ANSWERS[kind])
        share = 900 / len(ANSWERS[kind])
        assert all(abs(count - share) < 4 * share**0.5 for count in counts.values()), counts


def test_all_types_occur_when_none_is_requested():
    kinds = Counter(question_at("train", 3, number)[1].type for number in range(600))
    assert set(kinds) == set(QUESTION_TYPES) and min(kinds.values()) > 25


def test_questions_are_pure_and_about_their_own_scene_where_it_has_one():
    assert question_at("train", 4, 9) == question_at("train", 4, 9)
    assert question_at("train", 4, 9) != question_at("train", 5, 9)
    own = sum(question_at("train", 4, n, "relation")[0] == scene_at("train", 4, n, (2, 6)) for n in range(100))
    assert own > 60


def test_questions_do_not_contain_their_answer():
    for kind, values in (("color", COLORS), ("shape", SHAPES), ("size", SIZES), ("texture", TEXTURES)):
        for number in range(200):
            text = question_at("train", 6, number, kind)[1].text
            assert not set(text.rstrip("?").split()) & set(values), text
    values_of = {"color": COLORS, "shape": SHAPES, "size": SIZES, "texture": TEXTURES}
    for number in range(200):
        text = question_at("train", 6, number, "same")[1].text
        attribute = text.rstrip("?").split()[-1]
        assert not set(text.split()) & set(values_of[attribute]), text
        text = question_at("train", 6, number, "larger")[1].text
        assert not set(text.split()) & set(SIZES), text
        text = question_at("train", 6, number, "nearest")[1].text
        assert not set(text.rstrip("?").split()) & set(values_of[text.split()[1]]), text
    for number in range(200):
        text = question_at("train", 6, number, "relation")[1].text
        assert not re.search(r"\b(at|on|in) the\b", text), text


def test_a_question_without_an_answer_in_the_scene_is_not_made():
    scene, rng = make_scene(0, 0, objects=(1, 1)), stream(0, 0, 9)
    for kind in ("relation", "same", "larger", "nearest", "more"):
        assert all(make_question(scene, kind, answer, rng) is None for answer in ANSWERS[kind])
    assert make_question(scene, "existence", "no", rng) is None, "no object of another scene was passed"
    absent = next(c for c in COLORS if c != scene.objects[0].color)
    assert make_question(scene, "color", absent, rng) is None
    assert not any(Description(color=absent).fits(scene_object) for scene_object in scene.objects)


def test_wrong_calls_are_named():
    scene, rng = make_scene(0, 0), stream(0, 0, 9)
    with pytest.raises(ValueError, match="no question type 'weight': choose one of color"):
        make_question(scene, "weight", "yes", rng)
    with pytest.raises(ValueError, match="no question type 'weight'"):
        question_at("train", 0, 0, "weight")
    with pytest.raises(ValueError, match="never has the answer 'maybe': yes, no"):
        make_question(scene, "relation", "maybe", rng)
    with pytest.raises(ValueError, match="no split 'dev'"):
        question_at("dev", 0, 0)
    with pytest.raises(ValueError, match="no scene of 1 to 1 objects has a 'larger' question"):
        question_at("train", 0, 0, "larger", objects=(1, 1))
    assert len(PLACES) == 9
