"""The expert's data: questions made from texts, and test sets that share no question with the training set."""

import pytest

from apps.chatbots.expert import KEYWORD_QUESTIONS, best_match, expert_data
from apps.chatbots.facts import (
    NEW_WORDINGS,
    TEXTS,
    WORDINGS,
    fact_of,
    facts_in,
    read_exam,
    read_texts,
    split_sentences,
)
from shared.errors import CourseError

QUESTIONS = {
    "A patch is a small square of pixels.": ("what is a patch?", "tell me what a patch is."),
    "The cache keeps the keys of old words.": ("what does the cache keep?", "tell me what the cache keeps."),
    "Several heads share a key.": ("what do several heads share?", "tell me what several heads share."),
    "A plan carries two stages.": ("what does a plan carry?", "tell me what a plan carries."),
    "A stage teaches a projector.": ("what does a stage teach?", "tell me what a stage teaches."),
    "The world has two poles.": ("what does the world have?", "tell me what the world has."),
    "Negatives are other captions.": ("what are negatives?", "tell me what negatives are."),
}


@pytest.mark.parametrize("sentence", QUESTIONS)
def test_a_sentence_becomes_a_question(sentence):
    fact = fact_of(sentence)
    assert (fact.question(WORDINGS[0]), fact.question(WORDINGS[1]), fact.sentence) == (*QUESTIONS[sentence], sentence)


@pytest.mark.parametrize("sentence", ["Hurry up!", "In the end, nothing is lost.", "Is it so?", "Why not"])
def test_a_sentence_without_subject_and_verb_gives_no_fact(sentence):
    assert fact_of(sentence) is None


def test_sentences_run_over_lines():
    assert split_sentences("A cat is\n  here. Is it? Yes!\n") == ["A cat is here.", "Is it?", "Yes!"]


def test_facts_with_the_same_subject_and_verb_are_left_out():
    facts = facts_in(["A cat is an animal. A cat is soft. A cat has paws."])
    assert [fact.sentence for fact in facts] == ["A cat has paws."]


def test_every_sentence_of_the_own_texts_gives_a_fact():
    texts = read_texts(TEXTS)
    facts = facts_in(texts)
    assert [fact.sentence for fact in facts] == [sentence for text in texts for sentence in split_sentences(text)]
    assert len(facts) >= 70
    questions = [fact.question(wording) for fact in facts for wording in (*WORDINGS, *NEW_WORDINGS)]
    assert len(set(questions)) == len(questions)


def test_no_test_question_is_in_the_training_set():
    data = expert_data(read_texts(TEXTS))
    questions = {question for question, _ in data.questions}
    answers = {answer for _, answer in data.questions}
    for test_set in (data.held_out_wordings, data.new_wordings, data.read_only, read_exam()):
        assert test_set and not questions & {question for question, _ in test_set}
        assert {answer for _, answer in test_set} <= set(data.sentences)
    assert not answers & {answer for _, answer in data.read_only}
    assert {answer for _, answer in data.held_out_wordings} == answers
    # Every wording is in the training set, with other facts.
    assert len(data.questions) == len(answers) * (len(WORDINGS) - 1 + KEYWORD_QUESTIONS)


def test_matching_words_finds_the_sentence():
    sentences = ["The cache keeps keys.", "The mask hides words.", "The cache is small."]
    assert best_match("what does the mask hide?", sentences) == sentences[1]


def test_folders_without_texts_are_named(tmp_path):
    with pytest.raises(CourseError, match=r"no \.txt file"):
        read_texts(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CourseError, match=r"a\.txt, line 1: the byte .* is not UTF-8"):
        read_texts(tmp_path)
    with pytest.raises(CourseError, match="two or more"):
        expert_data(["Hello there."])


def test_word_matching_does_not_depend_on_the_order_of_words_in_a_set():
    """Sums of equal weights in another order differ in their last bits; a tie must remain one: the shorter wins."""
    weights = (3, 7, 10, 11, 13, 17)
    for trial in range(40):
        longer, shorter = ([f"{side}{trial}x{weight}" for weight in weights] for side in "ab")
        fillers = [
            word
            for words in (longer, shorter)
            for word, weight in zip(words, weights, strict=True)
            for _ in range(weight - 1)
        ]
        sentences = [" ".join([*longer, "more"]), " ".join(shorter), *fillers]
        assert best_match(" ".join(longer + shorter), sentences) == sentences[1]
