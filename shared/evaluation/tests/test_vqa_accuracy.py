"""VQA accuracy: equal to the official program's on hundreds of questions, and to hand-computed values."""

import json
from pathlib import Path

import pytest

from shared.evaluation import normalize_answer, score_answers, vqa_accuracy
from shared.evaluation.tests.cases import answer_cases

EXPECTED = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))["answers"]


def test_six_hundred_questions_score_as_in_the_official_program():
    cases = answer_cases()
    assert len(cases) == len(EXPECTED) == 600
    for (answer, people), expected in zip(cases, EXPECTED, strict=True):
        assert vqa_accuracy(answer, people) == pytest.approx(expected, abs=1e-6), (answer, people)
    assert {round(score, 1) for score in EXPECTED} == {0.0, 0.3, 0.6, 0.9, 1.0}


@pytest.mark.parametrize(("agreeing", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0)])
def test_the_score_depends_on_the_number_of_people_who_agree(agreeing, score):
    people = ["red"] * agreeing + [f"other {number}" for number in range(10 - agreeing)]
    assert vqa_accuracy("red", people) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "normalized"),
    [
        ("The Dog", "dog"),
        (" two\ndogs ", "2 dogs"),
        ("None", "0"),
        ("dont", "don't"),
        ("couldntve", "couldntve"),
        ("couldnt've", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("left/right", "left right"),
        ("left /right", "left right"),
        ("1,000", "1000"),
        ("1,000/day", "1000day"),
        ("3.5", "3.5"),
        ("u.s.", "us"),
        ("what?!", "what"),
        ("", ""),
    ],
)
def test_answers_are_normalized(answer, normalized):
    assert normalize_answer(answer) == normalized


def test_without_disagreement_answers_are_compared_unchanged():
    assert vqa_accuracy("Two", ["two"] * 10) == 0.0
    assert vqa_accuracy("two", ["two"] * 10) == 1.0
    assert vqa_accuracy("Two", ["two"] * 9 + ["three"]) == 1.0


def test_a_set_of_questions_and_their_types():
    people = {1: ["yes"] * 10, 2: ["2"] * 2 + [str(n) for n in range(10, 18)], "c": ["red"] * 5 + ["blue"] * 5}
    answers = {1: "yes", 2: "two", "c": "green"}
    scores = score_answers(answers, people, {1: "yes/no", 2: "number", "c": "other"})
    assert scores == pytest.approx(
        {"accuracy": 1.6 / 3, "accuracy/yes/no": 1.0, "accuracy/number": 0.6, "accuracy/other": 0.0}
    )
    assert set(score_answers(answers, people)) == {"accuracy"}


def test_answers_with_different_keys_raise():
    with pytest.raises(ValueError, match="no answers to score"):
        score_answers({}, {})
    with pytest.raises(ValueError, match="1 questions lack human answers, the first is 2"):
        score_answers({1: "a", 2: "b"}, {1: ["a"]})
    with pytest.raises(ValueError, match="1 questions lack an answer, the first is 2"):
        score_answers({1: "a"}, {1: ["a"], 2: ["b"]})
    with pytest.raises(ValueError, match="no human answer"):
        vqa_accuracy("a", [])


@pytest.mark.parametrize(
    ("answer", "human_answers", "message"),
    [
        ("red", "red", r"human_answers is 'red' \(a str\); expected a list of texts"),
        ("red", b"red", "human_answers is b'red'"),
        ("red", 3, r"human_answers is 3 \(a int\)"),
        ("red", ["red", 3], r"human_answers\[1\] is 3 \(a int\); expected a text"),
        (3, ["3"] * 10, r"the answer is 3 \(a int\); expected a text"),
        (None, ["no"] * 10, "the answer is None"),
        (["red"], ["red"] * 10, "the answer is \\['red'\\]"),
    ],
)
def test_a_text_in_place_of_a_list_and_what_is_no_text_are_refused(answer, human_answers, message):
    """A text would be compared letter by letter: "e" agrees with one "annotator" of "red"."""
    with pytest.raises(ValueError, match=message):
        vqa_accuracy(answer, human_answers)


def test_refused_answers_are_named_by_their_question():
    with pytest.raises(ValueError, match=r"the answer to 'q2' is 2 \(a int\)"):
        score_answers({"q1": "1", "q2": 2}, {"q1": ["1"], "q2": ["2"]})
    with pytest.raises(ValueError, match="the human answers to 'q1' is 'one'"):
        score_answers({"q1": "1"}, {"q1": "one"})
    with pytest.raises(ValueError, match=r"answers is \['1'\].*expected a dictionary"):
        score_answers(["1"], [["1"]])
    with pytest.raises(ValueError, match="the answer is 1"):
        normalize_answer(1)
