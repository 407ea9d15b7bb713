"""Questions about clips: answers recomputed from sampled states; blind and single-frame baselines stay at chance."""

import re
import sys
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import combinations, pairwise
from math import log

import pytest

from data.toybox.heldout import mentions_held_out
from data.toybox.language import NUMBERS
from data.toybox.questions import vocabulary
from data.toybox.scene import COLORS, SHAPES, SIZES, TEXTURES, stream
from data.toybox.video.clip import objects_at_time
from data.toybox.video.language import clip_caption, timeline
from data.toybox.video.question_types import (
    ANSWERS,
    CHANCE,
    LENGTHS_OF,
    QUESTION_TYPES,
    TEMPORAL_TYPES,
    Form,
)
from data.toybox.video.questions import clip_vocabulary, make_clip_question, question_about_clip_at

VALUES = {"shape": SHAPES, "color": COLORS, "size": SIZES, "texture": TEXTURES}


def attributes_of(text: str) -> dict[str, str]:
    return {name: word for word in text.split() for name, values in VALUES.items() if word in values}


def fits(state, text: str) -> bool:
    return state is not None and all(getattr(state, name) == word for name, word in attributes_of(text).items())


class Film:
    """A clip as a person sees it: objects found by their words, their states at a time, and when something happens."""

    def __init__(self, clip):
        self.clip = clip
        self.first, self.middle, self.last = (objects_at_time(clip, clip.seconds * k / 2) for k in range(3))
        # Between and after all events, so that every state of every object occurs.
        times = {0, clip.duration, *(time for event in clip.events for time in (event.start, event.end))}
        self.states = [objects_at_time(clip, Fraction(time, 1000)) for time in times]

    def the(self, text: str) -> int:
        (target,) = {i for states in self.states for i, state in enumerate(states) if fits(state, text)}
        return target

    def events(self, target: int, verb: str) -> list:
        kind = verb.split()[-1]
        return [event for event in self.clip.events if event.target == target and event.kind == kind]

    def starts(self, target: int, verb: str) -> list[Fraction]:
        return [Fraction(event.start, 1000) for event in self.events(target, verb)]

    def pace(self, target: int) -> float:
        (event,) = self.events(target, "move")
        (x0, y0), (x1, y1) = self.first[target][4:], self.last[target][4:]
        return (abs(x1 - x0) + abs(y1 - y0)) / (event.end - event.start)


VERBS = "enter|leave|move|change color|change size|change texture"


def base(verb: str) -> str:
    return re.sub(r"^(enter|leave|move|change)s", r"\1", verb)


def answer(film: Film, text: str) -> str:
    """Answer a question from the sampled states by another way than the one that made it."""
    if match := re.fullmatch(rf"does the (.*) ({VERBS}) before the (.*) (\w+s(?: \w+)?)\?", text):
        (a,) = film.starts(film.the(match[1]), match[2])
        (b,) = film.starts(film.the(match[3]), base(match[4]))
        return "yes" if a < b else "no"
    if match := re.fullmatch(r"does the (.*) move (left or right|up or down)\?", text):
        first, last = (states[film.the(match[1])] for states in (film.first, film.last))
        if match[2] == "left or right":
            return "right" if last.x > first.x else "left"
        return "down" if last.y > first.y else "up"
    if match := re.fullmatch(r"which object moves faster, the (\w+) or the (\w+)\?", text):
        return max(match.groups(), key=lambda shape: film.pace(film.the(shape)))
    if match := re.fullmatch(r"which object (.*), the (\w+) or the (\w+)\?", text):
        (shape,) = [shape for shape in match.groups()[1:] if film.starts(film.the(shape), base(match[1]))]
        return shape
    if match := re.fullmatch(rf"how many times does the (.*) ({VERBS})\?", text):
        return NUMBERS[len(film.starts(film.the(match[1]), match[2]))]
    if match := re.fullmatch(r"for how many seconds does the (.*) move\?", text):
        (event,) = film.events(film.the(match[1]), "move")
        return str(Fraction(event.end - event.start, 1000))
    if match := re.fullmatch(rf"at which second does the (.*?) (?:start to )?({VERBS})\?", text):
        (time,) = film.starts(film.the(match[1]), match[2])
        return str(time)
    if match := re.fullmatch(r"is the (.*) (\w+) or (\w+) when the (.*?) (?:starts to )?(\S+(?: \w+)?)\?", text):
        noun, verb = match[4], match[5]
        if verb.split()[0] in (*SHAPES, "object"):  # the verb's first word is the last of the noun
            noun, verb = f"{noun} {verb.split()[0]}", verb.split()[1]
        (time,) = film.starts(film.the(noun), base(verb))
        (name,) = [name for name, values in VALUES.items() if match[2] in values]
        return getattr(objects_at_time(film.clip, time)[film.the(match[1])], name)
    match = re.fullmatch(r"what (\w+) is the (.*)\?", text)
    return getattr(film.middle[film.the(match[2])], match[1])


@pytest.mark.parametrize("question_type", QUESTION_TYPES)
def test_answers_are_right(question_type):
    for split in ("train", "test"):
        for number in range(25):
            clip, question = question_about_clip_at(split, 0, number, question_type)
            assert question.type == question_type and question.answer in ANSWERS[question_type]
            assert answer(Film(clip), question.text) == question.answer, (question, clip.events)
            assert 0 <= question.start <= question.end <= clip.duration
            assert clip.seconds in LENGTHS_OF[question_type]
            if split == "train":
                assert not mentions_held_out(f"{question.text} {question.answer}"), question


# --- baselines ---


def bag(text: str) -> set[str]:
    tokens = text.rstrip("?").split()
    return {*tokens, *(" ".join(pair) for pair in pairwise(tokens))}


def middle_features(clip, question) -> set[str]:
    """Return what the complete state of the middle frame adds to the words: the named objects, and how they differ."""
    middle, features = objects_at_time(clip, clip.seconds / 2), set()
    words = re.sub(r", the| when the| before the", " |", question.text.rstrip("?")).replace(" or the ", " | ")
    # "is the star red or blue": the two options are no attributes of the object.
    words = re.sub(r" (\w+) or (\w+)", "", words)
    options = re.search(r"(\w+) or (\w+) when", question.text)
    slots = []
    for part in words.split("|"):
        named = [state for state in middle if attributes_of(part) and fits(state, part)]
        slots.append(named[0] if len(named) == 1 else None)
    for name, slot in zip("ab", slots, strict=False):
        values = {"present": slot is not None}
        if slot:
            values |= {key: getattr(slot, key) for key in VALUES}
            values |= {"column": 3 * slot.x // 128, "row": 3 * slot.y // 128}
        features |= {f"{name}.{key}={value}" for key, value in values.items()}
    if options and slots[0]:
        features |= {f"option {k}" for k in (1, 2) if options[k] in slots[0]}
    features |= {f"{a} & {b}" for a, b in combinations(sorted(features), 2)}
    kind = re.search(r"left or right|up or down|move|enter|leave|change\w* \w+", question.text)
    features |= {f"{feature} & {kind[0]}" for feature in features} if kind else set()
    return features | {f"present={sum(state is not None for state in middle)}"}


def relative(question) -> str:
    """Return the answer as the first or second of the two that the text names, else the answer itself."""
    pair = re.search(r"(?:the )?(\w+) or (?:the )?(\w+)(?: when|\?)", question.text)
    return f"option {pair.groups().index(question.answer) + 1}" if pair else question.answer


def naive_bayes(train: list[tuple[set[str], str]], test: list[tuple[set[str], str]]) -> float:
    """Return the accuracy of naive Bayes with the features that separate the training answers best."""
    answers, counts = Counter(label for _, label in train), defaultdict(Counter)
    for features, label in train:
        counts[label].update(features)
    totals = Counter(feature for features, _ in train for feature in features)
    frequent = {feature for feature, total in totals.items() if total >= 5}

    def surplus(feature: str) -> float:
        return sum(abs(counts[label][feature] - totals[feature] * answers[label] / len(train)) for label in answers)

    used = sorted(frequent, key=lambda feature: (-surplus(feature), feature))[:60]

    def score(features: set[str], label: str) -> float:
        terms = (log((counts[label][feature] + 0.5) / (answers[label] + 1)) for feature in used if feature in features)
        return log(answers[label]) + sum(terms)

    return sum(max(sorted(answers), key=lambda label: score(f, label)) == true for f, true in test) / len(test)


def baselines(question_type: str, train: int, test: int) -> tuple[float, float]:
    """Return the accuracy of a guesser that receives the words, and of one that receives the middle frame, too."""
    blind, single = [], []
    for number in range(train + test):
        clip, question = question_about_clip_at("train", 1, number, question_type)
        label = relative(question)
        blind.append((bag(question.text), label))
        single.append((bag(question.text) | middle_features(clip, question), label))
    return naive_bayes(blind[:train], blind[train:]), naive_bayes(single[:train], single[train:])


def limit(chance: float, count: int) -> float:
    """Return three standard deviations of `count` guesses above chance."""
    return chance + 3 * (chance * (1 - chance) / count) ** 0.5


TRAIN, TEST = 300, 200


@pytest.mark.parametrize("question_type", QUESTION_TYPES)
def test_blind_and_single_frame_baselines_are_at_chance_where_they_should_be(question_type):
    blind, single = baselines(question_type, TRAIN, TEST)
    # A color never has the held-out partner of the shape that the question names: one option fewer.
    chance = max(CHANCE[question_type], 1 / 7 if question_type in ("color", "shape") else 0)
    assert blind < limit(chance, TEST), (question_type, blind)
    if question_type in TEMPORAL_TYPES:
        assert single < limit(chance, TEST), (question_type, single)
    else:
        assert single > 0.9, (question_type, single)


def test_the_single_frame_baseline_finds_a_leak():
    """The check above can fail: before a move, an object at a side of the world can only move to the other side."""
    rows = []
    for number in range(500):
        clip, question = question_about_clip_at("train", 2, number, "direction")
        if question.start > clip.duration // 2:
            rows.append((bag(question.text) | middle_features(clip, question), relative(question)))
    assert naive_bayes(rows[:130], rows[130:]) > limit(1 / 2, len(rows) - 130)


def test_questions_are_pure_and_of_every_type():
    assert question_about_clip_at("train", 3, 4) == question_about_clip_at("train", 3, 4)
    types = Counter(question_about_clip_at("train", 3, number)[1].type for number in range(80))
    assert len(types) >= 10
    answers = Counter(question_about_clip_at("train", 4, number, "count")[1].answer for number in range(120))
    assert set(answers) == set(ANSWERS["count"]) and min(answers.values()) > 12


def test_lengths_and_gaps_can_be_limited():
    for number in range(15):
        clip, question = question_about_clip_at("train", 5, number, "order", seconds=(6, 8), least_gap=1000)
        assert 6 <= clip.seconds <= 8 and question.end - question.start >= 1000


def test_the_vocabulary_contains_every_word():
    vocabulary_words = {*vocabulary(), *clip_vocabulary()}
    for number in range(60):
        clip, question = question_about_clip_at("test", 6, number)
        text = " ".join((question.text, question.answer, clip_caption(clip, "full"), timeline(clip)))
        assert set(re.findall("[a-z]+", text)) <= vocabulary_words


def test_wrong_calls_are_named():
    with pytest.raises(ValueError, match="no question type 'weight': choose one of order"):
        question_about_clip_at("train", 0, 0, "weight")
    with pytest.raises(ValueError, match="no split 'dev'"):
        question_about_clip_at("dev", 0, 0)
    with pytest.raises(
        ValueError, match="'duration' question about a clip of 2 to 8 s: expected a length from 9 to 16"
    ):
        question_about_clip_at("train", 0, 0, "duration", seconds=(2, 8))
    clip, _ = question_about_clip_at("train", 0, 0, "size")
    with pytest.raises(ValueError, match="type 'size' never has the form"):
        make_clip_question(clip, "size", Form((), "huge"), stream(0, 0, 9))


if __name__ == "__main__":
    print("type, chance, blind, middle frame")
    for each in sys.argv[1:] or QUESTION_TYPES:
        print(each, f"{CHANCE[each]:.3f}", *(f"{score:.3f}" for score in baselines(each, 800, 800)), flush=True)
