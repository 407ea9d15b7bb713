"""Lesson 4's experiment, as `make lesson-4` runs it."""

from lessons.lesson_04_flamingo.experiment.arms import ARMS, SIZES
from lessons.lesson_04_flamingo.experiment.claims import CLAIMS
from lessons.lesson_04_flamingo.experiment.figures import CAPTIONS, draw
from shared.course.lesson import Lesson

LESSON = Lesson(
    number=4,
    arms=ARMS,
    claims=CLAIMS,
    headline="eight-shots",
    headline_caption="accuracy on images after eight examples of an unstated rule",
    figures=draw,
    captions=CAPTIONS,
    data_sets=dict.fromkeys(SIZES, "toybox"),
    splits={
        "validation": "other scenes and episodes",
        "test": "new episodes and images, with held-out rules unless a claim names others",
        "text": "new documents of seen combinations",
    },
)
