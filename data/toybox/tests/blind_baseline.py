"""A blind baseline for tests: naive Bayes on the words of a question, without the image."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from math import log

from data.toybox.questions import Question


def bag(text: str) -> set[str]:
    """Return the words and the pairs of words of a question."""
    words = text.rstrip("?").split()
    return {*words, *pairwise(words)}


def blind(train: Sequence[Question], test: Sequence[Question]) -> float:
    """Return the accuracy on `test` of naive Bayes fitted to `train`."""
    answers, words = Counter(question.answer for question in train), defaultdict(Counter)
    for question in train:
        words[question.answer].update(bag(question.text))
    training_words = {word for counts in words.values() for word in counts}

    def score(text: str, answer: str) -> float:
        total = answers[answer]
        return log(total) + sum(log((words[answer][word] + 0.5) / (total + 1)) for word in bag(text) & training_words)

    return sum(max(answers, key=lambda answer: score(q.text, answer)) == q.answer for q in test) / len(test)


def margin(chance: float, guesses: int) -> float:
    """Return how far above chance a blind baseline may score: three standard deviations, and three points."""
    return 3 * (chance * (1 - chance) / guesses) ** 0.5 + 0.03
