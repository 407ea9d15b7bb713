"""What the chatbots learn from: questions made of texts, and dialogues about the toy world in two manners."""

import re

import pytest

from apps.chatbots.dialogues import KINDS, dialogue_at, final_answer, is_patient
from apps.chatbots.expert import ASKED_ABOUT, best_match, lessons_from
from apps.chatbots.facts import (
    NEW_WORDINGS,
    TEXTS,
    WORDINGS,
    fact_of,
    facts_in,
    read_exam,
    read_texts,
    sentences,
)
from data.toybox.heldout import mentions_held_out
from data.toybox.questions import vocabulary
from shared.errors import CourseError

ASKED = {
    "A patch is a small square of pixels.": ("what is a patch?", "tell me what a patch is."),
    "The cache keeps the keys of old words.": ("what does the cache keep?", "tell me what the cache keeps."),
    "Several heads share a key.": ("what do several heads share?", "tell me what several heads share."),
    "A plan carries two stages.": ("what does a plan carry?", "tell me what a plan carries."),
    "A stage teaches a projector.": ("what does a stage teach?", "tell me what a stage teaches."),
    "The world has two colours.": ("what does the world have?", "tell me what the world has."),
    "Negatives are other captions.": ("what are negatives?", "tell me what negatives are."),
}


@pytest.mark.parametrize("sentence", ASKED)
def test_a_sentence_becomes_a_question(sentence):
    fact = fact_of(sentence)
    assert (fact.ask(WORDINGS[0]), fact.ask(WORDINGS[1]), fact.sentence) == (*ASKED[sentence], sentence)


@pytest.mark.parametrize("sentence", ["Hurry up!", "In the end, nothing is lost.", "Is it so?", "Why not"])
def test_what_says_nothing_of_anything_is_not_asked_for(sentence):
    assert fact_of(sentence) is None


def test_sentences_run_over_lines():
    assert sentences("A cat is\n  here. Is it? Yes!\n") == ["A cat is here.", "Is it?", "Yes!"]


def test_what_two_sentences_say_of_one_subject_is_not_asked_for():
    facts = facts_in(["A cat is an animal. A cat is soft. A cat has paws."])
    assert [fact.sentence for fact in facts] == ["A cat has paws."]


def test_the_lessons_own_texts_can_all_be_asked_for():
    texts = read_texts(TEXTS)
    facts = facts_in(texts)
    assert [fact.sentence for fact in facts] == [sentence for text in texts for sentence in sentences(text)]
    assert len(facts) >= 70
    questions = [fact.ask(wording) for fact in facts for wording in (*WORDINGS, *NEW_WORDINGS)]
    assert len(set(questions)) == len(questions)


def test_no_test_question_is_learned_from():
    lessons = lessons_from(read_texts(TEXTS))
    learned = {question for question, _ in lessons.asked}
    answers = {answer for _, answer in lessons.asked}
    for tests in (lessons.kept_wordings, lessons.new_wordings, lessons.read_only, read_exam()):
        assert tests and not learned & {question for question, _ in tests}
        assert {answer for _, answer in tests} <= set(lessons.read)
    assert not answers & {answer for _, answer in lessons.read_only}
    assert {answer for _, answer in lessons.kept_wordings} == answers
    # Every wording is learned, with other facts.
    assert len(lessons.asked) == len(answers) * (len(WORDINGS) - 1 + ASKED_ABOUT)


def test_matching_words_finds_the_sentence():
    said = ["The cache keeps keys.", "The mask hides words.", "The cache is small."]
    assert best_match("what does the mask hide?", said) == said[1]


def test_folders_without_texts_are_named(tmp_path):
    with pytest.raises(CourseError, match=r"no \.txt file"):
        read_texts(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CourseError, match=r"a\.txt is not UTF-8"):
        read_texts(tmp_path)
    with pytest.raises(CourseError, match="two or more"):
        lessons_from(["Hello there."])


# ── The teacher's dialogues ───────────────────────────────────────────────────────────────────────────────────────────


def test_both_manners_say_the_same():
    words = set(vocabulary())
    for number in range(40):
        each = dialogue_at("train", 0, number)
        assert is_patient(each.patient) and not is_patient(each.blunt)
        assert final_answer(each.patient) == final_answer(each.blunt) == each.answer
        # The hint names what to find, the look describes it, and both come before the answer.
        hint, look, said = re.findall(r"[^.]+\.", each.patient)
        assert hint.startswith("find the ") and look.startswith(" here we see a") and said.endswith(f" {each.answer}.")
        assert look.removeprefix(" here we see a").strip("n .") in each.question
        # What is looked at is what was to be found, and has the answer in it.
        found = set(hint.removeprefix("find the ").rstrip(".").split()) - {"thing"}
        assert found | {each.answer} <= set(look.rstrip(".").split())
        assert set(re.findall(r"\w+", each.patient)) <= words


def test_the_kinds_take_turns():
    starts = {
        "colour": "what colour",
        "shape": "what shape",
        "size": "what size",
        "texture": "what texture",
        "place": "where",
    }
    for number, kind in enumerate(KINDS):
        assert dialogue_at("train", 0, number).question.split(". ")[1].startswith(starts[kind])


def test_held_out_combinations_are_in_the_test_alone():
    def all_of(split):
        return [
            mentions_held_out(" ".join((each.question, each.patient)))
            for each in (dialogue_at(split, 0, number) for number in range(40))
        ]

    assert not any(all_of("train")) and not any(all_of("validation")) and all(all_of("test"))


@pytest.mark.parametrize(
    "text",
    [
        "blue.",
        "find the star. the colour is blue.",
        "here we see a star. the colour is blue. find the star.",
        "the colour is blue. find the star. here we see a star.",
        "find the star. here we see a star. the colour is blue. blue.",
        "",
    ],
)
def test_other_manners_are_not_patient(text):
    assert not is_patient(text)
