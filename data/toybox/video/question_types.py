"""The types of questions about clips: words, answers, chance levels, and what is drawn before a clip is searched."""

from typing import NamedTuple

from data.toybox.language import NUMBERS
from data.toybox.scene import COLORS, SHAPES, SIZES, TEXTURES
from data.toybox.video.clip import CHANGES, KINDS

TEMPLATES = {
    "order": "does the {first} {verb} before the {second} {other_verb}?",
    "direction": "does the {first} move {options}?",
    "which": "which object {verb}, the {first} or the {second}?",
    "count": "how many times does the {first} {verb}?",
    "duration": "for how many seconds does the {first} move?",
    "when": "at which second does the {first} {verb}?",
    "faster": "which object moves faster, the {first} or the {second}?",
    "state": "is the {first} {options} when the {second} {verb}?",
    "color": "what color is the {first}?",
    "shape": "what shape is the {first}?",
    "size": "what size is the {first}?",
    "texture": "what texture is the {first}?",
}
QUESTION_TYPES = tuple(TEMPLATES)
TEMPORAL_TYPES = QUESTION_TYPES[:8]
APPEARANCE_TYPES = QUESTION_TYPES[8:]
AXES = {"left": "left or right", "right": "left or right", "up": "up or down", "down": "up or down"}
ANSWERS: dict[str, tuple[str, ...]] = {
    "order": ("yes", "no"),
    "direction": tuple(AXES),
    "which": SHAPES,
    "count": NUMBERS[:4],
    "duration": ("1", "2", "3", "4"),
    "when": tuple(map(str, range(1, 9))),
    "faster": SHAPES,
    "state": COLORS + SIZES + TEXTURES,
    "color": COLORS,
    "shape": SHAPES,
    "size": SIZES,
    "texture": TEXTURES,
}
CHANCE = {
    **{question_type: 1 / len(answers) for question_type, answers in ANSWERS.items()},
    **dict.fromkeys(("order", "direction", "which", "faster", "state"), 1 / 2),
}
"""Accuracy of a guess. The text of "order" to "state" leaves two answers; others leave all of their type."""
_SHORTEST = {"order": 4, "count": 4, "faster": 4, "state": 4, "duration": 9}
# In these lengths an event may start at any whole second from 1 to 8: the middle is a quarter second from all of them.
_WHEN_LENGTHS = (9.5, 11.5, 13.5, 15.5)
LENGTHS_OF: dict[str, tuple[float, ...]] = {
    question_type: tuple(half / 2 for half in range(2 * _SHORTEST.get(question_type, 2), 33))
    for question_type in QUESTION_TYPES
} | {"when": _WHEN_LENGTHS}
"""For each type the lengths of its clips in seconds, equally likely and independent of the answer."""


class Form(NamedTuple):
    """What is drawn before a clip is searched.

    kinds   the kinds of events that the question names
    answer  the answer; for "state" "before" or "after"; "" where both named objects are equally likely
    """

    kinds: tuple[str, ...]
    answer: str


_STEADY_KINDS = ("move", *CHANGES)
FORMS: dict[str, tuple[Form, ...]] = {
    "order": tuple(Form((a, b), answer) for a in KINDS for b in KINDS for answer in ("yes", "no")),
    "direction": tuple(Form(("move",), answer) for answer in ANSWERS["direction"]),
    "which": tuple(Form((kind,), "") for kind in ("move", "color", "texture")),
    "count": tuple(Form((kind,), answer) for kind in _STEADY_KINDS for answer in ANSWERS["count"]),
    "duration": tuple(Form(("move",), answer) for answer in ANSWERS["duration"]),
    "when": tuple(Form((kind,), answer) for kind in _STEADY_KINDS for answer in ANSWERS["when"]),
    "faster": (Form(("move",), ""),),
    "state": tuple(Form((a, b), answer) for a in CHANGES for b in KINDS for answer in ("before", "after")),
    **{name: tuple(Form((), answer) for answer in ANSWERS[name]) for name in APPEARANCE_TYPES},
}


class ClipQuestion(NamedTuple):
    """A question, its type, its one right answer, and the milliseconds between which its events lie."""

    type: str
    text: str
    answer: str
    start: int
    end: int
