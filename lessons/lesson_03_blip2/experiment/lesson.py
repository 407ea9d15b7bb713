"""Lesson 3's experiment, as `make lesson-3` runs it."""

from data.toybox.heldout import SPLIT_CONTENTS
from lessons.lesson_03_blip2.experiment.arms import ARMS, PRESETS
from lessons.lesson_03_blip2.experiment.claims import CLAIMS
from lessons.lesson_03_blip2.experiment.figures import CAPTIONS, draw
from shared.course.lesson import Lesson

LESSON = Lesson(
    number=3,
    arms=ARMS,
    claims=CLAIMS,
    headline="answers",
    headline_caption="accuracy on questions about unseen color–shape combinations",
    figures=draw,
    captions=CAPTIONS,
    data_sets=dict.fromkeys(PRESETS, "toybox"),
    splits=SPLIT_CONTENTS,
)
